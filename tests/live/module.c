/* A module for servers of tests: commands that no command table has, each announcing its keys in
 * another way. Values are plain strings; what matters is where commands go.
 *
 * The server hands a module one function, with which all others are looked up by name; only what
 * is used here is declared. SetCommandInfo exists since 7.0: before that, the commands that need
 * it say what they can with the simple range.
 */
#include <stdint.h>
#include <stdlib.h>
#include <string.h>

#define OK 0
#define ERR 1
#define READ 1
#define WRITE 2
#define UNUSED(argument) (void)(argument)

typedef struct Context Context;
typedef struct String String;
typedef struct Key Key;
typedef struct Command Command;
typedef int (*Function)(Context *context, String **argv, int argc);

/* -- what the server offers -- */

static int (*SetModuleAttribs)(Context *, const char *name, int version, int api_version);
static int (*CreateCommand)(
    Context *, const char *name, Function, const char *flags, int first, int last, int step);
static Command *(*GetCommand)(Context *, const char *name);
static int (*IsKeysPositionRequest)(Context *);
static void (*KeyAtPos)(Context *, int position);
static int (*WrongArity)(Context *);
static int (*ReplyWithError)(Context *, const char *);
static int (*ReplyWithSimpleString)(Context *, const char *);
static int (*ReplyWithLongLong)(Context *, long long);
static int (*ReplyWithArray)(Context *, long count);
static int (*ReplyWithStringBuffer)(Context *, const char *, size_t);
static int (*ReplyWithNull)(Context *);
static int (*ReplicateVerbatim)(Context *);
static const char *(*StringPtrLen)(const String *, size_t *size);
static int (*StringToLongLong)(const String *, long long *);
static Key *(*OpenKey)(Context *, String *name, int mode);
static void (*CloseKey)(Key *);
static char *(*StringDMA)(Key *, size_t *size, int mode);
static int (*StringSet)(Key *, String *value);

typedef struct {
    int version;
    size_t size_of_history, size_of_key_spec, size_of_argument;
} InfoVersion;

typedef enum { BEGIN_NONE, BEGIN_UNKNOWN, BEGIN_INDEX, BEGIN_KEYWORD } Begin;
typedef enum { FIND_OMITTED, FIND_UNKNOWN, FIND_RANGE, FIND_COUNT } Find;

#define READS (1 << 0 | 1 << 4)
#define UPDATES (1 << 1 | 1 << 5)
#define INCOMPLETE (1 << 9)

typedef struct {
    const char *notes;
    uint64_t flags;
    Begin begin;
    union {
        struct { int at; } index;
        struct { const char *word; int from; } keyword;
    } start;
    Find find;
    union {
        struct { int last, step, limit; } range;
        struct { int count_at, first, step; } count;
    } keys;
} KeySpec;

typedef struct {
    const InfoVersion *version;
    const char *summary, *complexity, *since;
    void *history;
    const char *tips;
    int arity;
    KeySpec *key_specs;
    void *arguments;
} Info;

static int (*SetCommandInfo)(Command *, const Info *);

/* -- values -- */

static void reply_value(Context *context, String *name) {
    size_t size = 0;
    Key *key = OpenKey(context, name, READ);
    const char *value = key == NULL ? NULL : StringDMA(key, &size, READ);
    if (value == NULL) ReplyWithNull(context);
    else ReplyWithStringBuffer(context, value, size);
    if (key != NULL) CloseKey(key);
}

static void set_value(Context *context, String *name, String *value) {
    Key *key = OpenKey(context, name, READ | WRITE);
    StringSet(key, value);
    CloseKey(key);
}

static long long length_of(Context *context, String *name) {
    size_t size = 0;
    Key *key = OpenKey(context, name, READ);
    if (key == NULL) return 0;
    StringDMA(key, &size, READ);
    CloseKey(key);
    return (long long)size;
}

static int done(Context *context) {
    ReplicateVerbatim(context);
    return ReplyWithSimpleString(context, "OK");
}

/* -- documents -- */

static int json_set(Context *context, String **argv, int argc) {
    if (argc != 4) return WrongArity(context);
    set_value(context, argv[1], argv[3]);
    return done(context);
}

static int json_get(Context *context, String **argv, int argc) {
    if (argc < 2) return WrongArity(context);
    reply_value(context, argv[1]);
    return OK;
}

static int json_mget(Context *context, String **argv, int argc) {
    const char *path;
    size_t size = 0;
    if (argc < 3) return WrongArity(context);
    path = StringPtrLen(argv[argc - 1], &size);
    if (size < 1 || path[0] != '$') return ReplyWithError(context, "ERR no path");
    ReplyWithArray(context, argc - 2);
    for (int i = 1; i < argc - 1; i++) reply_value(context, argv[i]);
    return OK;
}

static int json_mset(Context *context, String **argv, int argc) {
    size_t size = 0;
    if (argc < 4 || (argc - 1) % 3) return WrongArity(context);
    for (int i = 1; i < argc; i += 3)
        if (StringPtrLen(argv[i + 1], &size)[0] != '$') return ReplyWithError(context, "ERR no path");
    for (int i = 1; i < argc; i += 3) set_value(context, argv[i], argv[i + 2]);
    return done(context);
}

/* -- keys that are counted: COUNTED numkeys key ..., STORED key numkeys key ... -- */

static int keys_behind(Context *context, String **argv, int argc, int at) {
    long long count;
    if (argc <= at || StringToLongLong(argv[at], &count) != OK || count < 1 || count >= argc - at)
        return 0;
    for (int i = 0; i < count; i++) KeyAtPos(context, at + 1 + i);
    return (int)count;
}

static long long lengths(Context *context, String **argv, int argc, int at) {
    long long count, sum = 0;
    if (argc <= at || StringToLongLong(argv[at], &count) != OK || count < 1 || count >= argc - at)
        return -1;
    for (int i = 0; i < count; i++) sum += length_of(context, argv[at + 1 + i]);
    return sum;
}

static int counted(Context *context, String **argv, int argc) {
    long long sum;
    if (IsKeysPositionRequest(context)) {
        keys_behind(context, argv, argc, 1);
        return OK;
    }
    sum = lengths(context, argv, argc, 1);
    return sum < 0 ? ReplyWithError(context, "ERR bad count") : ReplyWithLongLong(context, sum);
}

static int stored(Context *context, String **argv, int argc) {
    long long sum;
    if (IsKeysPositionRequest(context)) {
        if (argc > 1) KeyAtPos(context, 1);
        keys_behind(context, argv, argc, 2);
        return OK;
    }
    sum = lengths(context, argv, argc, 2);
    if (sum < 0) return ReplyWithError(context, "ERR bad count");
    set_value(context, argv[1], argv[argc - 1]);
    ReplicateVerbatim(context);
    return ReplyWithLongLong(context, sum);
}

/* -- others -- */

static int add(Context *context, String **argv, int argc) {
    if (argc != 3) return WrongArity(context);
    set_value(context, argv[1], argv[2]);
    ReplicateVerbatim(context);
    return ReplyWithLongLong(context, 1);
}

static int exists(Context *context, String **argv, int argc) {
    if (argc != 3) return WrongArity(context);
    return ReplyWithLongLong(context, length_of(context, argv[1]) > 0);
}

static int two_places(Context *context, String **argv, int argc) {
    if (argc != 5) return WrongArity(context);
    set_value(context, argv[1], argv[2]);
    set_value(context, argv[4], argv[2]);
    return done(context);
}

static int first_half(Context *context, String **argv, int argc) {
    if (argc < 3 || argc % 2 == 0) return WrongArity(context);
    for (int i = 1; i <= argc / 2; i++) set_value(context, argv[i], argv[i + argc / 2]);
    return done(context);
}

static int one(Context *context, String **argv, int argc) {
    UNUSED(argv);
    UNUSED(argc);
    return ReplyWithLongLong(context, 1);
}

static KeySpec TWO_PLACES[] = {
    {NULL, UPDATES, BEGIN_INDEX, {.index = {1}}, FIND_RANGE, {.range = {0, 1, 0}}},
    {NULL, UPDATES, BEGIN_INDEX, {.index = {4}}, FIND_RANGE, {.range = {0, 1, 0}}},
    {0}};
static KeySpec FIRST_HALF[] = {
    {NULL, UPDATES, BEGIN_INDEX, {.index = {1}}, FIND_RANGE, {.range = {-1, 1, 2}}}, {0}};
static KeySpec COUNTED[] = {
    {NULL, READS, BEGIN_INDEX, {.index = {1}}, FIND_COUNT, {.count = {0, 1, 1}}}, {0}};
static KeySpec FIRST_ONLY[] = {
    {NULL, UPDATES | INCOMPLETE, BEGIN_INDEX, {.index = {1}}, FIND_RANGE, {.range = {0, 1, 0}}},
    {0}};

typedef struct {
    const char *name;
    Function function;
    const char *flags;
    int first, last, step;
    const char *tips;
    KeySpec *key_specs;
} Described;

static const Described COMMANDS[] = {
    {"json.set", json_set, "write deny-oom", 1, 1, 1, NULL, NULL},
    {"json.get", json_get, "readonly", 1, 1, 1, NULL, NULL},
    {"json.mget", json_mget, "readonly", 1, 1, 1, NULL, NULL},
    {"json.mset", json_mset, "write deny-oom", 1, -1, 3, NULL, NULL},
    {"bf.add", add, "write deny-oom", 1, 1, 1, NULL, NULL},
    {"bf.exists", exists, "readonly", 1, 1, 1, NULL, NULL},
    {"ft.search", one, "readonly", 1, 1, 1, NULL, NULL},
    {"own.two", two_places, "write", 1, -1, 3, NULL, TWO_PLACES},
    {"own.half", first_half, "write", 1, -1, 1, NULL, FIRST_HALF},
    {"own.count", counted, "readonly getkeys-api", 0, 0, 0, NULL, COUNTED},
    {"own.hidden", counted, "readonly getkeys-api", 0, 0, 0, NULL, NULL},
    {"own.store", stored, "write getkeys-api", 1, 1, 1, NULL, NULL},
    {"own.partly", stored, "write getkeys-api", 1, 1, 1, NULL, FIRST_ONLY},
    {"own.one", one, "readonly", 0, 0, 0, NULL, NULL},
    {"own.sum", one, "readonly", 0, 0, 0, "request_policy:all_shards response_policy:agg_sum", NULL},
};

static int describe(Context *context, const Described *what) {
    static const InfoVersion VERSION = {1, 2 * sizeof(char *), sizeof(KeySpec), 64};
    Info info = {.version = &VERSION, .tips = what->tips, .key_specs = what->key_specs};
    if (SetCommandInfo == NULL || (what->tips == NULL && what->key_specs == NULL)) return OK;
    return SetCommandInfo(GetCommand(context, what->name), &info);
}

int RedisModule_OnLoad(Context *context, String **argv, int argc) {
    int (*look_up)(const char *name, void *place) = *(int (**)(const char *, void *))context;
    UNUSED(argv);
    UNUSED(argc);
#define FIND(name) look_up("RedisModule_" #name, (void *)&name)
    FIND(SetModuleAttribs), FIND(CreateCommand), FIND(IsKeysPositionRequest), FIND(KeyAtPos);
    FIND(WrongArity), FIND(ReplyWithError), FIND(ReplyWithSimpleString), FIND(ReplyWithLongLong);
    FIND(ReplyWithArray), FIND(ReplyWithStringBuffer), FIND(ReplyWithNull), FIND(ReplicateVerbatim);
    FIND(StringPtrLen), FIND(StringToLongLong), FIND(OpenKey), FIND(CloseKey), FIND(StringDMA);
    FIND(StringSet), FIND(GetCommand), FIND(SetCommandInfo);
    SetModuleAttribs(context, "own", 1, 1);
    for (size_t i = 0; i < sizeof(COMMANDS) / sizeof(COMMANDS[0]); i++) {
        const Described *what = &COMMANDS[i];
        if (CreateCommand(context, what->name, what->function, what->flags, what->first,
                          what->last, what->step) != OK
            || describe(context, what) != OK)
            return ERR;
    }
    return OK;
}
