"""What operators see. Imported only from above."""
