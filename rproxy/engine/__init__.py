"""One client's conversation. `dispatch` is the page to read first."""
