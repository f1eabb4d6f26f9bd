/* pipeplug in C: see pipeplug.h, and docs/protocol.md for what is sent. */
#ifndef _GNU_SOURCE
#define _GNU_SOURCE /* pipe2, accept4, F_SETPIPE_SZ, struct ucred */
#endif
#include "pipeplug.h"

#include <errno.h>
#include <fcntl.h>
#include <limits.h>
#include <poll.h>
#include <pthread.h>
#include <signal.h>
#include <spawn.h>
#include <stdarg.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/ioctl.h>
#include <sys/socket.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/uio.h>
#include <sys/un.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

extern char **environ;

enum {
    DIR_ONE_WAY = 1,
    DIR_REQUEST = 2,
    DIR_RESPONSE = 3,
    CONTEXT_MAX = 4096,
    PROGRESS_MAX = 4096,
    FAILURE_MAX = 65536,
    READ_SIZE = 65536,
    /* Bytes of a chunk that memory is allocated for before they arrive. */
    AHEAD = 1 << 20,
    /* Bytes that wait to be written before senders wait, and before the connection ends. */
    OUT_LIMIT = 4 << 20,
    OUT_MAX = 64 << 20,
    JSON_DEPTH = 128,
    PIPE_SIZE = 1 << 20,
    TAIL_LINES = 20,
    BUSY_MS = 200
};
#define CONFIG_MAX ((size_t)1 << 20)
#define DEFAULT_WINDOW ((uint64_t)4 << 20)
#define DEFAULT_STREAM_WINDOW ((uint64_t)1 << 20)
/* Interval at which a thread looks whether the one that reads is busy with a handler. */
#define TICK_NS 1000000
/* Longest time that the reader looks for more before it sleeps. It does so only while that has been of use lately. */
#define SPIN_NS 25000
#define NEVER INT64_MAX

/* ==== Time, memory, text ==== */

static int64_t now_ns(void) {
    struct timespec t;
    clock_gettime(CLOCK_MONOTONIC, &t);
    return (int64_t)t.tv_sec * 1000000000 + t.tv_nsec;
}

/* Time in so many milliseconds; never if they are negative. */
static int64_t in_ms(int ms) { return ms < 0 ? NEVER : now_ns() + (int64_t)ms * 1000000; }

/* Milliseconds until a time, rounded up, as poll(2) takes them. */
static int ms_until(int64_t at) {
    int64_t left;
    if (at == NEVER) return -1;
    left = at - now_ns();
    if (left <= 0) return 0;
    left = (left + 999999) / 1000000;
    return left > INT_MAX ? INT_MAX : (int)left;
}

static void pause_ns(long ns) {
    struct timespec pause = {0, 0};
    pause.tv_nsec = ns;
    nanosleep(&pause, NULL);
}

static void cond_init(pthread_cond_t *cond) {
    pthread_condattr_t attr;
    pthread_condattr_init(&attr);
    pthread_condattr_setclock(&attr, CLOCK_MONOTONIC);
    pthread_cond_init(cond, &attr);
    pthread_condattr_destroy(&attr);
}

/* Returns 0 if the time is over. */
static int cond_wait(pthread_cond_t *cond, pthread_mutex_t *mutex, int64_t until) {
    struct timespec t;
    if (until == NEVER) return pthread_cond_wait(cond, mutex) == 0;
    t.tv_sec = (time_t)(until / 1000000000);
    t.tv_nsec = (long)(until % 1000000000);
    return pthread_cond_timedwait(cond, mutex, &t) != ETIMEDOUT;
}

static char *copy_of(const char *text) {
    size_t len = strlen(text) + 1;
    char *copy = malloc(len);
    if (copy != NULL) memcpy(copy, text, len);
    return copy;
}

static const char *const STATUS_TEXTS[] = {
    "ok",
    "no more parts",
    "invalid argument",
    "no memory",
    "a system call failed",
    "the plugin did not start",
    "closed",
    "not a chunk",
    "the other side answered with an error",
    "timed out",
    "cancelled",
    "reserved command",
    "not supported by the other side",
    "over a limit",
    "no more parts are wanted",
    "the parts were ended early",
};

const char *ppg_status_text(ppg_status status) {
    size_t index = (size_t)status;
    return index < sizeof STATUS_TEXTS / sizeof *STATUS_TEXTS ? STATUS_TEXTS[index] : "unknown status";
}

static ppg_status fail(ppg_error *error, ppg_status status, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 3, 4)))
#endif
    ;

static ppg_status fail(ppg_error *error, ppg_status status, const char *format, ...) {
    if (error != NULL) {
        va_list args;
        va_start(args, format);
        error->status = status;
        vsnprintf(error->message, sizeof error->message, format, args);
        va_end(args);
    }
    return status;
}

/* Goes on with the message of an error. */
static void more(ppg_error *error, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

static void more(ppg_error *error, const char *format, ...) {
    size_t len;
    va_list args;
    if (error == NULL) return;
    len = strlen(error->message);
    va_start(args, format);
    vsnprintf(error->message + len, sizeof error->message - len, format, args);
    va_end(args);
}

static ppg_status fine(ppg_error *error) {
    if (error != NULL) {
        error->status = PPG_OK;
        error->message[0] = '\0';
    }
    return PPG_OK;
}

/* Text that grows. A failed allocation leaves `failed` set, and is looked at once at the end. */
struct text {
    char *at;
    size_t len, cap;
    int failed;
};

static void text_add(struct text *text, const void *bytes, size_t len) {
    if (text->failed) return;
    if (text->cap - text->len <= len) {
        size_t cap = (text->cap + len + 64) * 2;
        char *at = realloc(text->at, cap);
        if (at == NULL) {
            text->failed = 1;
            return;
        }
        text->at = at;
        text->cap = cap;
    }
    if (len > 0) memcpy(text->at + text->len, bytes, len);
    text->len += len;
    text->at[text->len] = '\0';
}

static void text_str(struct text *text, const char *str) { text_add(text, str, strlen(str)); }

static void text_number(struct text *text, uint64_t number) {
    char digits[24];
    snprintf(digits, sizeof digits, "%llu", (unsigned long long)number);
    text_str(text, digits);
}

/* A JSON string. */
static void text_quote(struct text *text, const char *str, size_t len) {
    size_t i, from = 0;
    text_str(text, "\"");
    for (i = 0; i < len; i++) {
        unsigned char c = (unsigned char)str[i];
        char escape[8];
        if (c >= 0x20 && c != '"' && c != '\\') continue;
        text_add(text, str + from, i - from);
        from = i + 1;
        if (c == '"' || c == '\\')
            snprintf(escape, sizeof escape, "\\%c", c);
        else if (c == '\n')
            snprintf(escape, sizeof escape, "\\n");
        else
            snprintf(escape, sizeof escape, "\\u%04x", c);
        text_str(text, escape);
    }
    text_add(text, str + from, len - from);
    text_str(text, "\"");
}

/* Length of the longest prefix that is UTF-8 (RFC 3629). */
static size_t utf8_prefix(const void *bytes, size_t len) {
    const unsigned char *s = bytes;
    size_t i = 0;
    while (i < len) {
        unsigned char c = s[i], low = 0x80, high = 0xBF;
        size_t more, k;
        if (c < 0x80) {
            i++;
            continue;
        }
        if (c >= 0xC2 && c <= 0xDF)
            more = 1;
        else if (c >= 0xE0 && c <= 0xEF)
            more = 2;
        else if (c >= 0xF0 && c <= 0xF4)
            more = 3;
        else
            return i;
        if (c == 0xE0) low = 0xA0;
        if (c == 0xED) high = 0x9F;
        if (c == 0xF0) low = 0x90;
        if (c == 0xF4) high = 0x8F;
        for (k = 1; k <= more; k++) {
            if (i + k >= len || s[i + k] < low || s[i + k] > high) return i;
            low = 0x80;
            high = 0xBF;
        }
        i += more + 1;
    }
    return i;
}

/* Reads a `number` of the grammar. */
static int parse_number(const char *s, size_t len, uint64_t *number) {
    uint64_t n = 0;
    size_t i;
    if (len == 0 || len > 20 || (len > 1 && s[0] == '0')) return 0;
    for (i = 0; i < len; i++) {
        unsigned digit = (unsigned)(s[i] - '0');
        if (digit > 9 || n > (UINT64_MAX - digit) / 10) return 0;
        n = n * 10 + digit;
    }
    *number = n;
    return 1;
}

/* Finds a word among those that are separated by spaces. */
static int has_word(const char *words, const char *word) {
    size_t len = strlen(word);
    while (words != NULL && *words != '\0') {
        size_t n = strcspn(words, " ");
        if (n == len && memcmp(words, word, len) == 0) return 1;
        words += n;
        words += strspn(words, " ");
    }
    return 0;
}

/* ==== JSON ==== */

static const char *json_space(const char *at, const char *end) {
    while (at < end && (*at == ' ' || *at == '\t' || *at == '\n' || *at == '\r')) at++;
    return at;
}

static int is_digit(char c) { return c >= '0' && c <= '9'; }

static int hex4(const char *at, unsigned *value) {
    int i;
    *value = 0;
    for (i = 0; i < 4; i++) {
        char c = at[i];
        unsigned digit;
        if (is_digit(c))
            digit = (unsigned)(c - '0');
        else if (c >= 'a' && c <= 'f')
            digit = (unsigned)(c - 'a') + 10;
        else if (c >= 'A' && c <= 'F')
            digit = (unsigned)(c - 'A') + 10;
        else
            return 0;
        *value = *value * 16 + digit;
    }
    return 1;
}

/* Skips a string; decodes it into `out` if there is one. NULL if it is none. */
static const char *json_string(const char *at, const char *end, struct text *out) {
    if (at >= end || *at != '"') return NULL;
    at++;
    while (at < end) {
        char c = *at++;
        if (c == '"') return at;
        if ((unsigned char)c < 0x20) return NULL;
        if (c == '\\') {
            unsigned code;
            char bytes[4];
            size_t n = 1;
            if (at >= end) return NULL;
            c = *at++;
            switch (c) {
            case '"':
            case '\\':
            case '/': bytes[0] = c; break;
            case 'b': bytes[0] = '\b'; break;
            case 'f': bytes[0] = '\f'; break;
            case 'n': bytes[0] = '\n'; break;
            case 'r': bytes[0] = '\r'; break;
            case 't': bytes[0] = '\t'; break;
            case 'u':
                if (end - at < 4 || !hex4(at, &code)) return NULL;
                at += 4;
                if (code >= 0xDC00 && code <= 0xDFFF) return NULL;
                if (code >= 0xD800 && code <= 0xDBFF) {
                    unsigned low;
                    if (end - at < 6 || at[0] != '\\' || at[1] != 'u' || !hex4(at + 2, &low)) return NULL;
                    if (low < 0xDC00 || low > 0xDFFF) return NULL;
                    code = 0x10000 + ((code - 0xD800) << 10) + (low - 0xDC00);
                    at += 6;
                }
                if (code < 0x80) {
                    bytes[0] = (char)code;
                } else if (code < 0x800) {
                    bytes[0] = (char)(0xC0 | code >> 6);
                    bytes[1] = (char)(0x80 | (code & 63));
                    n = 2;
                } else if (code < 0x10000) {
                    bytes[0] = (char)(0xE0 | code >> 12);
                    bytes[1] = (char)(0x80 | (code >> 6 & 63));
                    bytes[2] = (char)(0x80 | (code & 63));
                    n = 3;
                } else {
                    bytes[0] = (char)(0xF0 | code >> 18);
                    bytes[1] = (char)(0x80 | (code >> 12 & 63));
                    bytes[2] = (char)(0x80 | (code >> 6 & 63));
                    bytes[3] = (char)(0x80 | (code & 63));
                    n = 4;
                }
                break;
            default: return NULL;
            }
            if (out != NULL) text_add(out, bytes, n);
        } else if (out != NULL) {
            text_add(out, &c, 1);
        }
    }
    return NULL;
}

static const char *json_number(const char *at, const char *end) {
    if (at < end && *at == '-') at++;
    if (at >= end || !is_digit(*at)) return NULL;
    if (*at == '0')
        at++;
    else
        while (at < end && is_digit(*at)) at++;
    if (at < end && *at == '.') {
        at++;
        if (at >= end || !is_digit(*at)) return NULL;
        while (at < end && is_digit(*at)) at++;
    }
    if (at < end && (*at == 'e' || *at == 'E')) {
        at++;
        if (at < end && (*at == '+' || *at == '-')) at++;
        if (at >= end || !is_digit(*at)) return NULL;
        while (at < end && is_digit(*at)) at++;
    }
    return at;
}

/* Skips a value, which begins at `at` without space. NULL if it is none. */
static const char *json_value(const char *at, const char *end, int depth) {
    static const char *const words[] = {"true", "false", "null"};
    size_t i;
    if (at >= end || depth > JSON_DEPTH) return NULL;
    if (*at == '"') return json_string(at, end, NULL);
    if (*at == '{' || *at == '[') {
        char close = *at == '{' ? '}' : ']';
        at = json_space(at + 1, end);
        if (at < end && *at == close) return at + 1;
        for (;;) {
            if (close == '}') {
                at = json_string(at, end, NULL);
                if (at == NULL) return NULL;
                at = json_space(at, end);
                if (at >= end || *at != ':') return NULL;
                at = json_space(at + 1, end);
            }
            at = json_value(at, end, depth + 1);
            if (at == NULL) return NULL;
            at = json_space(at, end);
            if (at >= end) return NULL;
            if (*at == close) return at + 1;
            if (*at != ',') return NULL;
            at = json_space(at + 1, end);
        }
    }
    for (i = 0; i < 3; i++) {
        size_t len = strlen(words[i]);
        if ((size_t)(end - at) >= len && memcmp(at, words[i], len) == 0) return at + len;
    }
    return json_number(at, end);
}

/* Returns 1 if the text is one JSON value, and nothing else. */
static int json_is_valid(const char *json, size_t len) {
    const char *end = json + len, *at;
    if (utf8_prefix(json, len) != len) return 0;
    at = json_value(json_space(json, end), end, 0);
    return at != NULL && json_space(at, end) == end;
}

/* Members of an object, one after the other. */
struct members {
    const char *at, *end;
    struct text key;
    const char *value;
    size_t value_len;
    int failed; /* no memory: members are left out */
};

/* Begins; returns 0 if the text is no object. */
static int members_begin(struct members *it, const char *json, size_t len) {
    memset(it, 0, sizeof *it);
    if (json == NULL || !json_is_valid(json, len)) return 0;
    it->end = json + len;
    it->at = json_space(json, it->end);
    if (*it->at != '{') return 0;
    it->at = json_space(it->at + 1, it->end);
    return 1;
}

/* Goes on; returns 0 behind the last member, and frees the key. The text was found to be valid. */
static int members_next(struct members *it) {
    if (*it->at == '}' || it->key.failed) {
        free(it->key.at);
        memset(&it->key, 0, sizeof it->key);
        return 0;
    }
    if (*it->at == ',') it->at = json_space(it->at + 1, it->end);
    it->key.len = 0;
    text_add(&it->key, "", 0);
    it->at = json_string(it->at, it->end, &it->key);
    it->value = json_space(json_space(it->at, it->end) + 1, it->end);
    it->at = json_value(it->value, it->end, 1);
    it->value_len = (size_t)(it->at - it->value);
    it->at = json_space(it->at, it->end);
    it->failed |= it->key.failed;
    return !it->failed || members_next(it);
}

static int key_is(const struct members *it, const char *key) {
    return strlen(key) == it->key.len && memcmp(it->key.at, key, it->key.len) == 0;
}

int ppg_json_get(const char *json, size_t len, const char *key, const char **value, size_t *value_len) {
    struct members it;
    int found = 0;
    if (!members_begin(&it, json, len)) return 0;
    while (members_next(&it)) {
        if (!key_is(&it, key)) continue;
        *value = it.value;
        *value_len = it.value_len;
        found = 1;
    }
    return found;
}

int ppg_json_is_object(const char *json, size_t len) {
    return json_is_valid(json, len) && *json_space(json, json + len) == '{';
}

/* Like ppg_json_text; *no_memory is set if that is the reason. */
static char *json_text(const char *value, size_t value_len, int *no_memory) {
    struct text text = {NULL, 0, 0, 0};
    const char *end = value + value_len;
    text_add(&text, "", 0);
    if (utf8_prefix(value, value_len) != value_len || json_string(value, end, &text) != end || text.failed ||
        strlen(text.at) != text.len) {
        *no_memory |= text.failed;
        free(text.at);
        return NULL;
    }
    return text.at;
}

char *ppg_json_text(const char *value, size_t value_len) {
    int no_memory = 0;
    return json_text(value, value_len, &no_memory);
}

char *ppg_json_quote(const char *string) {
    struct text text = {NULL, 0, 0, 0};
    text_quote(&text, string, strlen(string));
    if (text.failed) {
        free(text.at);
        return NULL;
    }
    return text.at;
}

/* A copy of JSON text. */
static char *json_copy(const char *value, size_t len) {
    char *copy = malloc(len + 1);
    if (copy == NULL) return NULL;
    memcpy(copy, value, len);
    copy[len] = '\0';
    return copy;
}

/* ==== Chunks ==== */

enum format { FORMAT_UNKNOWN, FORMAT_STANDARD, FORMAT_CLASSIC };

/* A chunk that was read. The command is behind the struct, and so are the data unless they are large. */
struct ppg_reply {
    uint64_t id;
    int direction;
    size_t command_len, len;
    char *command;
    unsigned char *data;
    /* Of an error. */
    char *code, *error_data;
    struct ppg_reply *next;
};
typedef struct ppg_reply chunk;

static void chunk_free(chunk *it) {
    if (it == NULL) return;
    if (it->data != (unsigned char *)(it->command + it->command_len + 1)) free(it->data);
    free(it->code);
    free(it->error_data);
    free(it);
}

enum field { IN_ID, IN_DIRECTION, IN_COMMAND_LEN, IN_COMMAND, IN_COMMAND_NUL, IN_LEN, IN_BUFFER };
static const char *const FIELDS[] = {"threadID", "direction", "len(cmd)", "cmd", "cmd", "len(buffer)", "buffer"};

enum skip { SKIP_NOT, SKIP_DIRECTION, SKIP_COMMAND, SKIP_BUFFER };

/* Reader of chunks: takes bytes in any pieces. */
struct reader {
    enum format format;
    size_t command_limit, buffer_limit;
    /* Limits above this are not allocated before the bytes are there. */
    enum field field;
    uint64_t offset; /* of the next byte in the stream */
    uint64_t number;
    unsigned digits;
    int leading_zero;
    uint64_t id, direction, command_len, len;
    char *command; /* of command_limit bytes */
    uint64_t command_got;
    char held[24]; /* third field while the format is open */
    unsigned held_len;
    /* The last chunk. */
    enum skip skip;
    chunk *chunk;
    uint64_t got;
    size_t cap;
    /* What broke the stream. */
    const char *bad_field, *bad_kind;
    uint64_t bad_offset;
};

enum event { EVENT_NONE, EVENT_CHUNK, EVENT_SKIPPED, EVENT_BROKEN, EVENT_NO_MEMORY };

static int reader_init(struct reader *it, enum format format, size_t command_limit, size_t buffer_limit) {
    memset(it, 0, sizeof *it);
    it->format = format;
    it->command_limit = command_limit;
    it->buffer_limit = buffer_limit;
    it->command = malloc((command_limit > 32 ? command_limit : 32) + 1);
    return it->command != NULL;
}

static void reader_free(struct reader *it) {
    free(it->command);
    chunk_free(it->chunk);
}

static enum event broken_at(struct reader *it, const char *kind, uint64_t offset) {
    it->bad_field = FIELDS[it->field];
    it->bad_kind = kind;
    it->bad_offset = offset;
    return EVENT_BROKEN;
}

/* Takes a byte of a number. Returns 1 at the NUL that ends it. */
static int reader_number(struct reader *it, unsigned char c, uint64_t offset, enum event *broken) {
    unsigned digit = (unsigned)c - '0';
    *broken = EVENT_NONE;
    if (c == 0) {
        if (it->digits == 0 && it->format == FORMAT_STANDARD) *broken = broken_at(it, "no-digits", offset);
        return 1;
    }
    if (digit > 9) {
        *broken = broken_at(it, "not-a-digit", offset);
    } else if (it->digits == 1 && it->number == 0) {
        *broken = broken_at(it, "leading-zero", offset);
    } else if (it->number > (UINT64_MAX - digit) / 10) {
        *broken = broken_at(it, "too-large", offset);
    } else {
        it->number = it->number * 10 + digit;
        it->digits++;
    }
    return 0;
}

static void next_field(struct reader *it, enum field field) {
    it->field = field;
    it->number = 0;
    it->digits = 0;
    it->command_got = field == IN_COMMAND ? 0 : it->command_got;
}

/* The header is complete. */
static enum event reader_header(struct reader *it) {
    it->got = 0;
    next_field(it, IN_BUFFER);
    if (it->direction < DIR_ONE_WAY || it->direction > DIR_RESPONSE)
        it->skip = SKIP_DIRECTION;
    else if (it->command_len > it->command_limit)
        it->skip = SKIP_COMMAND;
    else if (it->len > it->buffer_limit)
        it->skip = SKIP_BUFFER;
    else
        it->skip = SKIP_NOT;
    if (it->skip != SKIP_NOT) return EVENT_SKIPPED;
    {
        size_t command_len = (size_t)it->command_len;
        int inside = it->len <= AHEAD;
        it->cap = inside ? (size_t)it->len : AHEAD;
        it->chunk = malloc(sizeof *it->chunk + command_len + 1 + (inside ? it->cap + 1 : 0));
        if (it->chunk == NULL) return EVENT_NO_MEMORY;
        memset(it->chunk, 0, sizeof *it->chunk);
        it->chunk->id = it->id;
        it->chunk->direction = (int)it->direction;
        it->chunk->command = (char *)(it->chunk + 1);
        it->chunk->command_len = command_len;
        memcpy(it->chunk->command, it->command, command_len);
        it->chunk->command[command_len] = '\0';
        it->chunk->data = (unsigned char *)it->chunk->command + command_len + 1;
        if (!inside) {
            it->chunk->data = malloc(it->cap + 1);
            if (it->chunk->data == NULL) return EVENT_NO_MEMORY;
        }
    }
    return EVENT_NONE;
}

/* Makes room for more of the buffer: twice as much as has come. */
static int reader_grow(struct reader *it) {
    size_t cap;
    unsigned char *data;
    if (it->got < it->cap || it->cap == it->len) return 1;
    cap = it->len / 2 > it->cap ? it->cap * 2 : (size_t)it->len;
    data = realloc(it->chunk->data, cap + 1);
    if (data == NULL) return 0;
    it->chunk->data = data;
    it->cap = cap;
    return 1;
}

static enum event reader_command_end(struct reader *it, uint64_t offset_of_command) {
    int looked_at = it->direction >= DIR_ONE_WAY && it->direction <= DIR_RESPONSE && it->command_len <= it->command_limit;
    if (looked_at) {
        size_t good = utf8_prefix(it->command, (size_t)it->command_len);
        if (good != it->command_len) {
            it->field = IN_COMMAND;
            return broken_at(it, "not-utf8", offset_of_command + good);
        }
    }
    next_field(it, IN_LEN);
    return EVENT_NONE;
}

/* Takes one byte of a header. */
static enum event reader_byte(struct reader *it, unsigned char c, uint64_t offset) {
    enum event broken;
    switch (it->field) {
    case IN_ID:
        if (!reader_number(it, c, offset, &broken)) return broken;
        if (broken) return broken;
        if (it->digits == 0 && it->format == FORMAT_UNKNOWN) it->format = FORMAT_CLASSIC;
        it->id = it->number;
        next_field(it, IN_DIRECTION);
        return EVENT_NONE;
    case IN_DIRECTION:
        if (!reader_number(it, c, offset, &broken)) return broken;
        if (broken) return broken;
        if (it->digits == 0 && it->format == FORMAT_UNKNOWN) it->format = FORMAT_CLASSIC;
        it->direction = it->number;
        it->held_len = 0;
        it->command_len = 0;
        next_field(it, it->format == FORMAT_CLASSIC ? IN_COMMAND : IN_COMMAND_LEN);
        return EVENT_NONE;
    case IN_COMMAND_LEN:
        if (it->format == FORMAT_UNKNOWN) {
            unsigned i, held = it->held_len;
            uint64_t from = offset - held;
            it->held[it->held_len++] = (char)c;
            if (is_digit((char)c) && it->held_len <= 20) return EVENT_NONE;
            it->format = c == 0 ? FORMAT_STANDARD : FORMAT_CLASSIC;
            next_field(it, it->format == FORMAT_CLASSIC ? IN_COMMAND : IN_COMMAND_LEN);
            for (i = 0; i <= held; i++) {
                broken = reader_byte(it, (unsigned char)it->held[i], from + i);
                if (broken) return broken;
            }
            return EVENT_NONE;
        }
        if (!reader_number(it, c, offset, &broken)) return broken;
        if (broken) return broken;
        it->command_len = it->number;
        next_field(it, it->command_len > 0 ? IN_COMMAND : IN_COMMAND_NUL);
        it->command_got = 0;
        return EVENT_NONE;
    case IN_COMMAND:
        if (it->format == FORMAT_CLASSIC) {
            if (c == 0) return broken_at(it, "nul-in-cmd", offset);
            if (c == ' ') {
                it->command_len = it->command_got;
                return reader_command_end(it, offset - it->command_got);
            }
        }
        if (it->command_got < it->command_limit || it->command_got < 4) it->command[it->command_got] = (char)c;
        it->command_got++;
        if (it->format == FORMAT_STANDARD && it->command_got == it->command_len) it->field = IN_COMMAND_NUL;
        return EVENT_NONE;
    case IN_COMMAND_NUL:
        if (c != 0) return broken_at(it, "no-nul", offset);
        return reader_command_end(it, offset - it->command_len);
    case IN_LEN:
        if (!reader_number(it, c, offset, &broken)) return broken;
        if (broken) return broken;
        it->len = it->number;
        return reader_header(it);
    default: return EVENT_NONE;
    }
}

/* Takes bytes up to the next event. *at goes on by what was taken; EVENT_NONE comes when all were. */
static enum event reader_take(struct reader *it, const unsigned char **at, const unsigned char *end) {
    for (;;) {
        if (it->field == IN_BUFFER) {
            uint64_t left = it->len - it->got, here = (uint64_t)(end - *at);
            size_t n;
            if (left == 0) {
                next_field(it, IN_ID);
                if (it->skip == SKIP_NOT) {
                    it->chunk->len = (size_t)it->len;
                    it->chunk->data[it->len] = '\0';
                    return EVENT_CHUNK;
                }
                continue;
            }
            if (here == 0) return EVENT_NONE;
            n = (size_t)(left < here ? left : here);
            if (it->skip == SKIP_NOT) {
                if (!reader_grow(it)) return EVENT_NO_MEMORY;
                if (n > it->cap - it->got) n = it->cap - (size_t)it->got;
                memcpy(it->chunk->data + it->got, *at, n);
            }
            it->got += n;
            it->offset += n;
            *at += n;
        } else {
            enum event event;
            if (*at == end) return EVENT_NONE;
            if (it->field == IN_COMMAND && it->format == FORMAT_STANDARD) {
                uint64_t left = it->command_len - it->command_got, here = (uint64_t)(end - *at);
                size_t n = (size_t)(left < here ? left : here);
                if (it->command_got + n <= it->command_limit) {
                    memcpy(it->command + it->command_got, *at, n);
                    it->command_got += n;
                    it->offset += n;
                    *at += n;
                    if (it->command_got == it->command_len) it->field = IN_COMMAND_NUL;
                    continue;
                }
            }
            event = reader_byte(it, *(*at)++, it->offset);
            it->offset++;
            if (event) return event;
        }
    }
}

/* The stream has ended: returns EVENT_BROKEN inside a chunk. */
static enum event reader_end(struct reader *it) {
    if (it->field == IN_ID && it->digits == 0) return EVENT_NONE;
    return broken_at(it, "end", it->offset);
}

/* Writes a header, which has at most HEADER_MAX bytes without the command. Returns its length. */
enum { HEADER_MAX = 72 };

static size_t put_number(char *out, uint64_t number) {
    char digits[20];
    size_t n = 0, i;
    do {
        digits[n++] = (char)('0' + number % 10);
        number /= 10;
    } while (number > 0);
    for (i = 0; i < n; i++) out[i] = digits[n - 1 - i];
    return n;
}

static size_t put_header(char *out, enum format format, uint64_t id, int direction, const char *command,
                         size_t command_len, size_t len) {
    size_t n = 0;
    int classic = format == FORMAT_CLASSIC;
    if (id != 0 || !classic) n += put_number(out, id);
    out[n++] = '\0';
    out[n++] = (char)('0' + direction);
    out[n++] = '\0';
    if (!classic) {
        n += put_number(out + n, command_len);
        out[n++] = '\0';
    }
    if (command_len > 0) memcpy(out + n, command, command_len);
    n += command_len;
    out[n++] = classic ? ' ' : '\0';
    if (len != 0 || !classic) n += put_number(out + n, len);
    out[n++] = '\0';
    return n;
}

/* ==== The connection ====
 *
 * One thread at a time reads: the leader. It is a thread of the library, which runs the handler of a request at once,
 * or a caller that waits for its reply, which leaves requests to the threads of the library. Reading and calling
 * therefore need no change of threads. If the leader's handler takes long, another thread sees that at its next tick
 * and reads on; a handler that waits for something gives up the lead before.
 *
 * `mu` guards all but `out`, which `out_mu` guards. out_mu may be taken inside of mu, not the other way round.
 */

/* Table from ids to what has them. The nodes are in what they find. */
struct node {
    uint64_t id;
    struct node *next;
    void *of;
};

struct table {
    struct node **at;
    size_t size, count;
};

static int table_add(struct table *table, struct node *node) {
    size_t i;
    if (table->count >= table->size) {
        size_t size = table->size == 0 ? 64 : table->size * 2;
        struct node **at = calloc(size, sizeof(struct node *));
        if (at == NULL) return 0;
        for (i = 0; i < table->size; i++) {
            struct node *it = table->at[i], *next;
            for (; it != NULL; it = next) {
                next = it->next;
                it->next = at[it->id & (size - 1)];
                at[it->id & (size - 1)] = it;
            }
        }
        free(table->at);
        table->at = at;
        table->size = size;
    }
    i = (size_t)node->id & (table->size - 1);
    node->next = table->at[i];
    table->at[i] = node;
    table->count++;
    return 1;
}

static void *table_find(const struct table *table, uint64_t id) {
    struct node *it;
    if (table->count == 0) return NULL;
    for (it = table->at[id & (table->size - 1)]; it != NULL; it = it->next)
        if (it->id == id) return it->of;
    return NULL;
}

static void table_remove(struct table *table, struct node *node) {
    struct node **at;
    if (table->count == 0) return;
    for (at = &table->at[node->id & (table->size - 1)]; *at != NULL; at = &(*at)->next) {
        if (*at != node) continue;
        *at = node->next;
        table->count--;
        return;
    }
}

/* A thread that waits, and could read meanwhile. */
struct waiter {
    pthread_cond_t *cond;
    struct waiter *next, *prev;
};

/* Bytes that wait to be written: in the classic format one chunk, in the standard format any number. */
struct out {
    struct out *next;
    size_t len, cap, off;
    char bytes[1];
};

struct command {
    struct command *next;
    char *name; /* NULL: all others */
    ppg_handler handler;
    void *user;
};

struct entry {
    struct entry *next;
    char *key, *value;
};

enum feature { F_FLOW, F_CONTEXT, F_CANCEL, F_STREAM, F_PROGRESS, F_FAILURE, F_CONFIG, F_LOG, FEATURES };
static const char *const FEATURE_NAMES[] = {"flow", "context", "cancel", "stream", "progress", "failure", "config", "log"};

/* What a cmd.context says. */
struct context {
    int is_set;
    uint64_t id;
    int64_t deadline;
    int send, receive, progress;
    struct entry *values;
};

struct ppg_stream {
    ppg_peer *peer;
    ppg_pending *pending; /* of a stream of this side */
    int64_t deadline;
    struct node node;
    int ours, is_linked;
    /* Parts that this side sends. */
    int can_send, send_done;
    uint64_t sent, credited;
    char *refusal;
    int is_refused;
    pthread_cond_t send_cond;
    /* Parts that come. */
    int can_receive, was_asked, enough_sent, credit_each;
    chunk *first, *last, *current;
    uint64_t received, taken, granted;
    int is_ended; /* no more come: is_ok tells whether they are complete */
    int is_ok;
    ppg_status end_status;
    char *end_reason;
    pthread_cond_t receive_cond;
    /* Both directions have ended. */
    int is_closed;
    ppg_status close_status;
};

struct ppg_pending {
    ppg_peer *peer;
    struct node node;
    int is_linked, is_done, one_way;
    ppg_status status;
    chunk *reply;
    int64_t deadline;
    int timeout_ms;
    char *command;
    pthread_cond_t cond;
    ppg_stream *stream;
    void (*on_progress)(uint64_t, uint64_t, const char *, void *);
    void *user;
};

struct ppg_request {
    ppg_peer *peer;
    struct node node;
    chunk *chunk;
    struct context context;
    ppg_stream *stream;
    uint64_t weight;
    ppg_handler handler;
    void *user;
    struct ppg_request *next;
    int refs, is_linked, is_answered, is_kept, is_cancelled, is_metadata;
    /* The last report of progress, and the time of it. */
    int64_t progress_at;
    struct text progress;
};

struct ppg_peer {
    pthread_mutex_t mu;
    /* Settings. */
    int is_guest, is_started, did_start;
    char *name, *path;
    struct command *commands;
    struct entry *metadata, *env, **args_end;
    struct entry *services;
    uint32_t *versions;
    size_t version_count;
    unsigned max_running;
    size_t command_limit, buffer_limit;
    uint64_t window, stream_window;
    void (*warn)(const char *, void *);
    void *warn_user;
    int (*on_start)(ppg_peer *, void *);
    void *on_start_user;
    void (*on_stop)(ppg_peer *, int, void *);
    void *on_stop_user;
    unsigned grace_ms;
    char *config;
    ppg_log_level log_level;
    int has_log_level;

    /* The other side. */
    struct entry *theirs;
    int knows_theirs, is_agreed, features[FEATURES];
    uint64_t their_window, their_stream_window;
    uint32_t interface_version;

    /* Reading. */
    int rfd, wfd, wake_read, wake_write;
    int read_socket, write_socket, write_shared, did_warn_of_cuts;
    size_t pipe_size; /* what the pipe holds that is written to */
    struct reader reader;
    unsigned char *rbuf;
    size_t rpos, rend;
    int leading, is_inline, more, is_polling, woken, is_paused;
    unsigned spin_misses, spin_skips; /* only the leader's; UINT_MAX skips for ever */
    pthread_t leader;
    uint64_t generation, epoch, seen_epoch;
    struct waiter *waiters;
    struct context context;

    /* Threads of the library. */
    pthread_t *threads;
    size_t thread_count, thread_cap;
    unsigned running, idle, eager, quiet_ticks;
    int watching, parked, lead_now, shutdown, hold;
    pthread_cond_t watch_cond, work_cond;
    ppg_request *queue, **queue_end;

    /* State. */
    uint64_t next_id;
    struct table calls, open, ours, theirs_streams;
    uint64_t sent, credited, taken, granted, held;
    unsigned one_ways; /* that are handled or wait */
    pthread_cond_t credit_cond, state_cond, cancel_cond;
    int is_stopping, is_closed, is_lost, was_called;
    ppg_status close_status;
    char close_reason[256];

    /* Writing. */
    pthread_mutex_t out_mu;
    pthread_cond_t out_cond, room_cond;
    struct out *out, *out_last;
    size_t out_len;
    int out_closed, out_broken, out_direct, quiet;
    pthread_t flusher;
    int has_flusher, flush_now;

    /* Host. */
    pid_t pid;
    int use_stdio, use_classic, attach, is_reaped, wait_status, was_stopped;
    unsigned start_timeout_ms;
    void (*on_line)(const char *, void *);
    void *on_line_user;
    int err_fd;
    pthread_t err_thread;
    int has_err_thread, err_ends, err_done;
    unsigned err_quiet; /* times that the thread found nothing to read */
    int knows_status, end_awaited;
    char *tail[TAIL_LINES];
    unsigned tail_count;

    /* Guest. */
    char **args;
    int exit_code;
};

/* A host takes what it has named from its first request on. */
static int accepts(const ppg_peer *peer, enum feature feature) {
    return peer->features[feature] || (!peer->is_guest && !peer->knows_theirs);
}

static void warn(ppg_peer *peer, const char *format, ...)
#if defined(__GNUC__)
    __attribute__((format(printf, 2, 3)))
#endif
    ;

static void warn(ppg_peer *peer, const char *format, ...) {
    char line[640];
    va_list args;
    int n = 0;
    if (peer->warn == NULL) n = snprintf(line, 128, "%.100s: ", peer->name);
    va_start(args, format);
    vsnprintf(line + n, sizeof line - 1 - (size_t)n, format, args);
    va_end(args);
    if (peer->warn != NULL) {
        peer->warn(line, peer->warn_user);
        return;
    }
    strcat(line, "\n");
    /* In one write, and without a reader there is nothing to do. */
    if (write(STDERR_FILENO, line, strlen(line)) < 0) return;
}

static int is_me(const ppg_peer *peer) { return peer->leading && pthread_equal(peer->leader, pthread_self()); }

static void wake_leader(ppg_peer *peer) {
    if (!peer->is_polling || peer->woken) return;
    peer->woken = 1;
    if (write(peer->wake_write, "", 1) < 0) return; /* full: it is awake */
}

static void drop_lead(ppg_peer *peer);
static void pass_lead(ppg_peer *peer);

/* ==== Writing ==== */

/* writev that never raises SIGPIPE. */
static ssize_t write_quiet(ppg_peer *peer, const struct iovec *iov, int n) {
    ssize_t done;
    if (peer->write_socket) {
        struct msghdr message;
        memset(&message, 0, sizeof message);
        message.msg_iov = (struct iovec *)(uintptr_t)iov;
        message.msg_iovlen = (size_t)n;
        do
            done = sendmsg(peer->wfd, &message, MSG_DONTWAIT | MSG_NOSIGNAL);
        while (done < 0 && errno == EINTR);
        return done;
    }
    if (peer->write_shared) {
        /* The pipe may be blocking for others: no more than certainly fits. */
        struct pollfd fd = {0, POLLOUT, 0};
        struct iovec first = iov[0];
        fd.fd = peer->wfd;
        if (poll(&fd, 1, 0) == 0) {
            errno = EAGAIN;
            return -1;
        }
        if (first.iov_len > PIPE_BUF) first.iov_len = PIPE_BUF;
        do
            done = write(peer->wfd, first.iov_base, first.iov_len);
        while (done < 0 && errno == EINTR);
        return done;
    }
    if (peer->quiet) {
        do
            done = writev(peer->wfd, iov, n);
        while (done < 0 && errno == EINTR);
    } else {
        sigset_t pipe_set, before, pending;
        int was_pending, error;
        sigemptyset(&pipe_set);
        sigaddset(&pipe_set, SIGPIPE);
        sigpending(&pending);
        was_pending = sigismember(&pending, SIGPIPE);
        pthread_sigmask(SIG_BLOCK, &pipe_set, &before);
        do
            done = writev(peer->wfd, iov, n);
        while (done < 0 && errno == EINTR);
        error = errno;
        if (done < 0 && error == EPIPE && !was_pending) {
            int got;
            sigpending(&pending);
            if (sigismember(&pending, SIGPIPE)) sigwait(&pipe_set, &got);
        }
        pthread_sigmask(SIG_SETMASK, &before, NULL);
        errno = error;
    }
    return done;
}

static void out_drop(ppg_peer *peer) {
    while (peer->out != NULL) {
        struct out *next = peer->out->next;
        free(peer->out);
        peer->out = next;
    }
    peer->out_last = NULL;
    peer->out_len = 0;
}

/* With out_mu: nothing can be written any more. */
static void out_fail(ppg_peer *peer) {
    peer->out_closed = 1;
    out_drop(peer);
    pthread_cond_broadcast(&peer->room_cond);
    pthread_cond_broadcast(&peer->out_cond);
}

/* With out_mu: a write has failed, so the connection is to end. */
static void out_break(ppg_peer *peer) {
    out_fail(peer);
    peer->out_broken = 1;
    if (write(peer->wake_write, "", 1) < 0) return; /* full: the leader is awake */
}

/* With out_mu: a large chunk of the classic format has to find an empty pipe, since its reader takes it in one read. */
static int classic_has_to_wait(const ppg_peer *peer, size_t len) {
    int unread = 0;
    if (peer->reader.format != FORMAT_CLASSIC || len <= 4096 || peer->write_socket) return 0;
    return ioctl(peer->wfd, FIONREAD, &unread) == 0 && unread > 0;
}

/* With out_mu: writes what waits, as far as that goes without waiting. */
static void out_flush(ppg_peer *peer) {
    while (peer->out != NULL && !peer->out_direct) {
        struct iovec iov[16];
        struct out *it = peer->out;
        int n = 0;
        ssize_t done;
        if (it->off == 0 && classic_has_to_wait(peer, it->len)) break;
        for (; it != NULL && n < 16; it = it->next) {
            iov[n].iov_base = it->bytes + it->off;
            iov[n++].iov_len = it->len - it->off;
            if (peer->reader.format == FORMAT_CLASSIC) break;
        }
        done = write_quiet(peer, iov, n);
        if (done < 0) {
            if (errno == EAGAIN || errno == EWOULDBLOCK) break;
            out_break(peer);
            return;
        }
        peer->out_len -= (size_t)done;
        while (done > 0) {
            size_t left = peer->out->len - peer->out->off;
            if ((size_t)done < left) {
                peer->out->off += (size_t)done;
                break;
            }
            done -= (ssize_t)left;
            it = peer->out->next;
            free(peer->out);
            peer->out = it;
            if (it == NULL) peer->out_last = NULL;
        }
    }
    if (peer->out_len <= OUT_LIMIT / 2) pthread_cond_broadcast(&peer->room_cond);
}

static void *flush_thread(void *of) {
    ppg_peer *peer = of;
    pthread_mutex_lock(&peer->out_mu);
    while (!peer->out_closed) {
        struct pollfd fd = {0, POLLOUT, 0};
        int waits;
        if (!peer->flush_now || peer->out == NULL || peer->out_direct) {
            peer->flush_now = 0;
            pthread_cond_wait(&peer->out_cond, &peer->out_mu);
            continue;
        }
        fd.fd = peer->wfd;
        waits = peer->out->off == 0 && classic_has_to_wait(peer, peer->out->len);
        pthread_mutex_unlock(&peer->out_mu);
        if (waits) {
            struct timespec pause = {0, 100000};
            nanosleep(&pause, NULL);
        } else {
            poll(&fd, 1, 100);
        }
        pthread_mutex_lock(&peer->out_mu);
        out_flush(peer);
    }
    pthread_mutex_unlock(&peer->out_mu);
    return NULL;
}

/* With out_mu: has the flusher write what waits. */
static void out_kick(ppg_peer *peer) {
    if (peer->out == NULL || peer->out_direct || peer->out_closed) return;
    if (!peer->has_flusher) {
        if (pthread_create(&peer->flusher, NULL, flush_thread, peer) != 0) return;
        peer->has_flusher = 1;
    }
    peer->flush_now = 1;
    pthread_cond_signal(&peer->out_cond);
}

/* With out_mu: keeps bytes until they can be written. */
static int out_keep(ppg_peer *peer, const struct iovec *iov, int n, size_t skip, int new_node) {
    size_t len = 0;
    struct out *last = peer->out_last;
    int i;
    for (i = 0; i < n; i++) len += iov[i].iov_len;
    len -= skip;
    if (new_node || last == NULL || last->cap - last->len < len) {
        size_t cap = new_node || len > 65536 ? len : 65536;
        last = malloc(sizeof *last + cap);
        if (last == NULL) return 0;
        last->next = NULL;
        last->len = last->off = 0;
        last->cap = cap;
        if (peer->out_last != NULL)
            peer->out_last->next = last;
        else
            peer->out = last;
        peer->out_last = last;
    }
    for (i = 0; i < n; i++) {
        size_t from = skip < iov[i].iov_len ? skip : iov[i].iov_len;
        skip -= from;
        if (iov[i].iov_len > from) memcpy(last->bytes + last->len, (char *)iov[i].iov_base + from, iov[i].iov_len - from);
        last->len += iov[i].iov_len - from;
    }
    peer->out_len += len;
    return 1;
}

/* With out_mu: writes a large chunk from the caller's memory, and waits for room. */
static void out_write_direct(ppg_peer *peer, struct iovec *iov, int n, int leads, int64_t until) {
    peer->out_direct = 1;
    while (n > 0 && !peer->out_closed) {
        ssize_t done = write_quiet(peer, iov, n);
        if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            out_break(peer);
            break;
        }
        if (done < 0) {
            struct pollfd fd = {0, POLLOUT, 0};
            int ms = ms_until(until);
            if (ms == 0) { /* What is begun has to be completed. */
                if (!out_keep(peer, iov, n, 0, 0)) out_break(peer);
                break;
            }
            fd.fd = peer->wfd;
            pthread_mutex_unlock(&peer->out_mu);
            if (leads) {
                /* The other side may not read before it was read from. */
                leads = 0;
                pthread_mutex_lock(&peer->mu);
                if (is_me(peer)) drop_lead(peer);
                pass_lead(peer);
                pthread_mutex_unlock(&peer->mu);
            }
            poll(&fd, 1, ms < 0 || ms > 100 ? 100 : ms);
            pthread_mutex_lock(&peer->out_mu);
            continue;
        }
        while (n > 0 && (size_t)done >= iov->iov_len) {
            done -= (ssize_t)iov->iov_len;
            iov++;
            n--;
        }
        if (n > 0) {
            iov->iov_base = (char *)iov->iov_base + done;
            iov->iov_len -= (size_t)done;
        }
    }
    peer->out_direct = 0;
    out_flush(peer);
    out_kick(peer);
    pthread_cond_broadcast(&peer->room_cond);
}

enum send_flags {
    SEND_NOW = 0,
    SEND_CORKED = 1, /* more will be sent in a moment, and then written */
    SEND_MAY_WAIT = 2, /* this thread may wait for room */
    SEND_LEADS = 4 /* it reads, and has to leave that before it waits */
};

/* Sends a chunk, behind another one if there is one, with nothing between them. */
static ppg_status send_two(ppg_peer *peer, const struct iovec *before, uint64_t id, int direction, const char *command,
                           const void *data, size_t len, int flags, int64_t until) {
    char small[HEADER_MAX + 256], *header = small;
    size_t command_len = strlen(command), total;
    struct iovec iov[3];
    int n = 0, classic = peer->reader.format == FORMAT_CLASSIC;
    ppg_status status = PPG_OK;
    if (command_len > 256 && (header = malloc(HEADER_MAX + command_len)) == NULL) {
        pthread_mutex_lock(&peer->out_mu);
        status = PPG_ENOMEM;
        goto out;
    }
    if (before != NULL) iov[n++] = *before;
    iov[n].iov_base = header;
    iov[n++].iov_len = put_header(header, peer->reader.format, id, direction, command, command_len, len);
    if (len > 0) {
        iov[n].iov_base = (void *)(uintptr_t)data;
        iov[n++].iov_len = len;
    }
    total = iov[0].iov_len + (n > 1 ? iov[1].iov_len : 0) + (n > 2 ? iov[2].iov_len : 0);

    pthread_mutex_lock(&peer->out_mu);
    if ((flags & SEND_LEADS) && peer->out_len >= OUT_LIMIT) {
        /* out_mu may be taken inside of mu only. */
        pthread_mutex_unlock(&peer->out_mu);
        pthread_mutex_lock(&peer->mu);
        if (is_me(peer)) drop_lead(peer);
        pass_lead(peer);
        pthread_mutex_unlock(&peer->mu);
        pthread_mutex_lock(&peer->out_mu);
        flags = SEND_MAY_WAIT;
    }
    while ((flags & SEND_MAY_WAIT) && (peer->out_len >= OUT_LIMIT || peer->out_direct) && !peer->out_closed) {
        if (!cond_wait(&peer->room_cond, &peer->out_mu, until)) {
            status = PPG_ETIMEOUT;
            goto out;
        }
    }
    if (peer->out_closed || peer->reader.format == FORMAT_UNKNOWN) {
        status = PPG_ECLOSED;
        goto out;
    }
    if ((flags & SEND_CORKED) && !classic && peer->out_len + total < 65536) {
        if (!out_keep(peer, iov, n, 0, 0)) status = PPG_ENOMEM;
        goto out;
    }
    if (classic && total > peer->pipe_size && len <= peer->pipe_size && before == NULL && !peer->write_socket) {
        /* Both do not fit into an empty pipe: the header goes first, so that the buffer is in one piece. */
        if (!out_keep(peer, iov, 1, 0, 1)) {
            status = PPG_ENOMEM;
            goto out;
        }
        if (!out_keep(peer, iov + 1, 1, 0, 1)) {
            out_break(peer);
            status = PPG_ENOMEM;
            goto out;
        }
    } else if (peer->out == NULL && !peer->out_direct && !classic_has_to_wait(peer, total)) {
        ssize_t done;
        if (!classic && total > 65536 && (flags & (SEND_MAY_WAIT | SEND_LEADS))) {
            out_write_direct(peer, iov, n, flags & SEND_LEADS, until);
            goto out;
        }
        if (classic && peer->write_shared && n > 1) {
            done = -1; /* in one write: from memory that is in one piece */
            errno = EAGAIN;
        } else {
            done = write_quiet(peer, iov, n);
        }
        if (done < 0 && errno != EAGAIN && errno != EWOULDBLOCK) {
            out_break(peer);
            status = PPG_ECLOSED;
            goto out;
        }
        if (done < 0) done = 0;
        if ((size_t)done == total) goto out;
        if (!out_keep(peer, iov, n, (size_t)done, classic)) {
            /* A part of it is written, and the rest is lost. */
            out_break(peer);
            status = PPG_ENOMEM;
            goto out;
        }
    } else {
        if (!out_keep(peer, iov, n, 0, classic)) {
            status = PPG_ENOMEM;
            goto out;
        }
        if (peer->out_len > OUT_MAX && !(flags & SEND_MAY_WAIT)) {
            out_break(peer); /* it sends, and does not read what it is answered */
            status = PPG_ELIMIT;
            goto out;
        }
    }
    out_flush(peer);
    out_kick(peer);
out:
    /* Without a response, a credit or a cancel the other side would wait for ever: it is to find the end in place of it. */
    if (status == PPG_ENOMEM && (direction == DIR_RESPONSE || strncmp(command, "cmd.", 4) == 0)) out_break(peer);
    pthread_mutex_unlock(&peer->out_mu);
    if (header != small) free(header);
    return status;
}

static ppg_status send_chunk(ppg_peer *peer, uint64_t id, int direction, const char *command, const void *data,
                             size_t len, int flags) {
    return send_two(peer, NULL, id, direction, command, data, len, flags, NEVER);
}

/* With mu: flags for what the protocol sends by itself. */
static int own_flags(const ppg_peer *peer) { return is_me(peer) && peer->more ? SEND_CORKED : SEND_NOW; }

static void send_own(ppg_peer *peer, uint64_t id, int direction, const char *command, const char *text) {
    send_chunk(peer, id, direction, command, text, strlen(text), own_flags(peer));
}

/* Returns 0 if the other side cannot be written to any more. */
static int flush(ppg_peer *peer) {
    int broken;
    pthread_mutex_lock(&peer->out_mu);
    if (peer->out != NULL) {
        out_flush(peer);
        out_kick(peer);
    }
    broken = peer->out_broken;
    pthread_mutex_unlock(&peer->out_mu);
    return !broken;
}

/* Waits until everything is written. */
static void wait_written(ppg_peer *peer, int64_t until) {
    pthread_mutex_lock(&peer->out_mu);
    for (;;) {
        int64_t soon = now_ns() + 5000000;
        out_flush(peer);
        out_kick(peer);
        if ((peer->out == NULL && !peer->out_direct) || peer->out_closed || now_ns() >= until) break;
        cond_wait(&peer->room_cond, &peer->out_mu, soon);
    }
    pthread_mutex_unlock(&peer->out_mu);
}

/* ==== Waiting ==== */

/* With mu: has another thread read on. */
static void drop_lead(ppg_peer *peer) {
    peer->generation++;
    peer->leading = 0;
    peer->is_inline = 0;
}

static void ensure_spare(ppg_peer *peer);

/* With mu: a thread that waits, or one of the library, is to lead. */
static void pass_lead(ppg_peer *peer) {
    if (peer->leading || peer->is_closed) return;
    if (peer->waiters != NULL) {
        pthread_cond_signal(peer->waiters->cond);
    } else if (peer->parked) {
        pthread_cond_signal(&peer->watch_cond);
    }
}

enum led { LED_DONE, LED_LOST };
static enum led lead(ppg_peer *peer, int is_caller, int (*until)(void *), void *arg, int64_t deadline);
static void give_up(ppg_pending *pending, ppg_status status);
static ppg_status add_end(ppg_peer *peer, ppg_error *error, ppg_status status);
static int has_ended(ppg_status status) { return status == PPG_ECLOSED || status == PPG_EBROKEN; }

/* With mu: waits until `until(arg)` is true, and reads meanwhile if no other thread does. Returns 0 if the time is over. */
static int wait_until(ppg_peer *peer, pthread_cond_t *cond, int (*until)(void *), void *arg, int64_t deadline) {
    int led = 0, result = 1;
    if (until(arg)) return 1;
    if (is_me(peer)) {
        drop_lead(peer);
        flush(peer);
    }
    while (!until(arg)) {
        struct waiter self;
        if (deadline != NEVER && now_ns() >= deadline) {
            result = 0;
            break;
        }
        if (!peer->leading && !peer->is_closed) {
            led = 1;
            peer->epoch++;
            lead(peer, 1, until, arg, deadline);
            continue;
        }
        self.cond = cond;
        self.prev = NULL;
        self.next = peer->waiters;
        if (self.next != NULL) self.next->prev = &self;
        peer->waiters = &self;
        cond_wait(cond, &peer->mu, deadline);
        if (self.next != NULL) self.next->prev = self.prev;
        if (self.prev != NULL)
            self.prev->next = self.next;
        else
            peer->waiters = self.next;
        led = 1;
    }
    if (led) pass_lead(peer);
    return result;
}

/* With mu: a thread that waits with this condition is to look. It may be the leader, in poll. */
static void notify(ppg_peer *peer, pthread_cond_t *cond) {
    pthread_cond_broadcast(cond);
    if (!is_me(peer)) wake_leader(peer);
}

/* ==== Entries, contexts, negotiation ==== */

static void entries_free(struct entry *it) {
    while (it != NULL) {
        struct entry *next = it->next;
        free(it->key);
        free(it->value);
        free(it);
        it = next;
    }
}

/* Sets an entry. The list keeps the order in which they were set. */
static int entry_set(struct entry **list, const char *key, const char *value) {
    struct entry *it;
    char *copy = copy_of(value);
    if (copy == NULL) return 0;
    for (; *list != NULL; list = &(*list)->next) {
        if (strcmp((*list)->key, key) != 0) continue;
        free((*list)->value);
        (*list)->value = copy;
        return 1;
    }
    it = calloc(1, sizeof *it);
    if (it == NULL || (it->key = copy_of(key)) == NULL) {
        free(it);
        free(copy);
        return 0;
    }
    it->value = copy;
    *list = it;
    return 1;
}

static const char *entry_get(const struct entry *it, const char *key) {
    for (; it != NULL; it = it->next)
        if (strcmp(it->key, key) == 0) return it->value;
    return NULL;
}

/* Says once that a buffer is larger than the pipe. A reader of the original Go package has it cut then, and does not tell. */
static void warn_of_cuts(ppg_peer *peer, size_t len) {
    int warns;
    if (peer->reader.format != FORMAT_CLASSIC || len <= peer->pipe_size) return;
    pthread_mutex_lock(&peer->mu);
    warns = !peer->did_warn_of_cuts && entry_get(peer->theirs, "pipeplug.protocol") == NULL;
    peer->did_warn_of_cuts |= warns;
    pthread_mutex_unlock(&peer->mu);
    if (warns)
        warn(peer, "a buffer of %lu bytes in the classic format is larger than the pipe (%lu): a peer that reads a buffer with "
             "one read, as the original Go package does, loses the rest; send less, or use the standard format",
             (unsigned long)len, (unsigned long)peer->pipe_size);
}

static void context_clear(struct context *it) {
    entries_free(it->values);
    memset(it, 0, sizeof *it);
    it->deadline = NEVER;
}

/* Reads a cmd.context. Returns 0 if it is none, -1 if there is no memory. */
static int context_read(struct context *it, const chunk *from) {
    struct members members;
    int good = 1, no_memory = 0;
    context_clear(it);
    if (from->len > CONTEXT_MAX || !members_begin(&members, (char *)from->data, from->len)) return 0;
    while (members_next(&members)) {
        const char *value = members.value;
        size_t len = members.value_len;
        if (key_is(&members, "deadline_ms")) {
            uint64_t ms;
            if (!parse_number(value, len, &ms)) {
                good = 0;
            } else {
                int64_t now = now_ns();
                it->deadline = ms > (uint64_t)(INT64_MAX - now) / 1000000 ? NEVER : now + (int64_t)ms * 1000000;
            }
        } else if (key_is(&members, "progress")) {
            it->progress = len == 4 && memcmp(value, "true", 4) == 0;
            if (!it->progress && !(len == 5 && memcmp(value, "false", 5) == 0)) good = 0;
        } else if (key_is(&members, "stream")) {
            char *words = json_text(value, len, &no_memory);
            if (words == NULL) {
                good = 0;
                continue;
            }
            it->send = has_word(words, "send");
            it->receive = has_word(words, "receive");
            free(words);
        } else if (key_is(&members, "values")) {
            struct members inner;
            entries_free(it->values);
            it->values = NULL;
            if (!members_begin(&inner, value, len)) {
                good = 0;
                continue;
            }
            while (members_next(&inner)) {
                char *text = json_text(inner.value, inner.value_len, &no_memory);
                if (*inner.value != '"') good = 0;
                if (text != NULL && strlen(inner.key.at) == inner.key.len && !entry_set(&it->values, inner.key.at, text))
                    no_memory = 1;
                free(text);
            }
            no_memory |= inner.failed;
        }
    }
    no_memory |= members.failed;
    it->is_set = good;
    it->id = from->id;
    if (!good || no_memory) context_clear(it);
    return no_memory ? -1 : good;
}

/* Metadata of the other side. Returns 0 if it is no object, -1 if there is no memory. */
static int read_theirs(ppg_peer *peer, const char *json, size_t len) {
    struct members members;
    const char *number;
    int result = 1;
    if (!members_begin(&members, json, len)) return 0;
    while (members_next(&members)) {
        char *text = ppg_json_text(members.value, members.value_len);
        if (text == NULL) text = json_copy(members.value, members.value_len);
        if (text == NULL || (strlen(members.key.at) == members.key.len && !entry_set(&peer->theirs, members.key.at, text)))
            result = -1;
        free(text);
    }
    if (members.failed) result = -1;
    number = entry_get(peer->theirs, "pipeplug.window");
    if (number != NULL && parse_number(number, strlen(number), &peer->their_window) && peer->their_window == 0)
        peer->their_window = 1;
    number = entry_get(peer->theirs, "pipeplug.stream_window");
    if (number != NULL && parse_number(number, strlen(number), &peer->their_stream_window) &&
        peer->their_stream_window == 0)
        peer->their_stream_window = 1;
    return result;
}

static void agree(ppg_peer *peer) {
    const char *words = entry_get(peer->theirs, "pipeplug.features");
    int i;
    for (i = 0; i < FEATURES; i++) peer->features[i] = has_word(words, FEATURE_NAMES[i]);
    /* A stream is opened by a context, and ended by a cancel. */
    if (!peer->features[F_CONTEXT] || !peer->features[F_CANCEL]) peer->features[F_STREAM] = 0;
    if (!peer->features[F_CONTEXT]) peer->features[F_PROGRESS] = 0;
    peer->knows_theirs = 1;
}

/* The highest common version. Returns 0 if both sides name versions and have none in common. */
static int choose_version(ppg_peer *peer) {
    const char *at = entry_get(peer->theirs, "pipeplug.interface_versions");
    if (at == NULL || peer->version_count == 0) return 1;
    peer->interface_version = 0;
    {
        int found = 0;
        while (*at != '\0') {
            size_t n = strcspn(at, " "), i;
            uint64_t version;
            if (parse_number(at, n, &version) && version <= UINT32_MAX)
                for (i = 0; i < peer->version_count; i++)
                    if (peer->versions[i] == version) {
                        found = 1;
                        if (version > peer->interface_version) peer->interface_version = (uint32_t)version;
                    }
            at += n;
            at += strspn(at, " ");
        }
        return found;
    }
}

static void member(struct text *text, const char *key, const char *value) {
    if (value == NULL) { /* there was no memory for it */
        text->failed = 1;
        return;
    }
    text_str(text, text->len == 0 ? "{" : ",");
    text_quote(text, key, strlen(key));
    text_str(text, ":");
    text_quote(text, value, strlen(value));
}

/* The metadata of this side. */
static void own_metadata(ppg_peer *peer, struct text *text) {
    struct entry *it;
    struct text list = {NULL, 0, 0, 0};
    size_t i;
    for (it = peer->metadata; it != NULL; it = it->next) member(text, it->key, it->value);
    member(text, "pipeplug.protocol", "1");
    for (i = 0; i < FEATURES; i++) {
        /* A host has the configuration, and a guest takes it; the same goes for the level of a log. */
        if (!peer->is_guest && (i == F_CONFIG || i == F_LOG)) continue;
        if (list.len > 0) text_str(&list, " ");
        text_str(&list, FEATURE_NAMES[i]);
    }
    member(text, "pipeplug.features", list.at);
    list.len = 0;
    text_number(&list, peer->window);
    member(text, "pipeplug.window", list.at);
    list.len = 0;
    text_number(&list, peer->stream_window);
    member(text, "pipeplug.stream_window", list.at);
    if (peer->version_count > 0) {
        list.len = 0;
        for (i = 0; i < peer->version_count; i++) {
            if (i > 0) text_str(&list, " ");
            text_number(&list, peer->versions[i]);
        }
        member(text, "pipeplug.interface_versions", list.at);
    }
    if (peer->services != NULL) {
        list.len = 0;
        for (it = peer->services; it != NULL; it = it->next) {
            if (it != peer->services) text_str(&list, " ");
            text_str(&list, it->key);
        }
        member(text, "pipeplug.services", list.at);
    }
    if (!peer->is_guest && peer->has_log_level) {
        static const char *const levels[] = {"off", "error", "warn", "info", "debug", "trace"};
        member(text, "pipeplug.log_level", levels[peer->log_level]);
    }
    member(text, "pipeplug.name", peer->name);
    /* The last one: it may hold secrets, and what goes wrong is shown from its beginning. */
    if (!peer->is_guest && peer->config != NULL) member(text, "pipeplug.config", peer->config);
    text_str(text, "}");
    if (list.failed) text->failed = 1;
    free(list.at);
}

/* ==== The end of things ==== */

static void stream_close(ppg_stream *stream, ppg_status status, int is_ok, const char *reason);

static int pending_is_done(void *of) { return ((ppg_pending *)of)->is_done; }

static int is_over(int64_t deadline) { return deadline != NEVER && now_ns() >= deadline; }

/* With mu. */
static void pending_done(ppg_pending *pending, ppg_status status, chunk *reply) {
    ppg_peer *peer = pending->peer;
    /* What comes after the deadline comes too late, whether this or the clock is looked at first. */
    if (!pending->is_done && status != PPG_ECANCELLED && is_over(pending->deadline)) status = PPG_ETIMEOUT;
    if (pending->is_done || status == PPG_ETIMEOUT) {
        chunk_free(reply);
        reply = NULL;
    }
    if (pending->is_done) return;
    pending->is_done = 1;
    pending->status = status;
    pending->reply = reply;
    if (pending->is_linked) table_remove(&peer->calls, &pending->node);
    pending->is_linked = 0;
    if (pending->stream != NULL) {
        ppg_status ended = status == PPG_OK ? PPG_EENOUGH : status == PPG_EPEER ? PPG_EENOUGH : status;
        const char *reason = status == PPG_EPEER && reply != NULL ? (char *)reply->data : NULL;
        stream_close(pending->stream, ended, status == PPG_OK, reason);
    }
    notify(peer, &pending->cond);
}

/* With mu: the end of the connection. */
static void peer_closed(ppg_peer *peer, ppg_status status, const char *reason) {
    size_t i;
    if (peer->is_closed) return;
    peer->is_closed = 1;
    peer->close_status = status;
    snprintf(peer->close_reason, sizeof peer->close_reason, "%s", reason);
    for (i = 0; i < peer->calls.size; i++)
        while (peer->calls.at[i] != NULL) pending_done(peer->calls.at[i]->of, status, NULL);
    for (i = 0; i < peer->ours.size; i++)
        while (peer->ours.at[i] != NULL) stream_close(peer->ours.at[i]->of, status, 0, NULL);
    for (i = 0; i < peer->open.size; i++) {
        struct node *it;
        for (it = peer->open.at[i]; it != NULL; it = it->next) ((ppg_request *)it->of)->is_cancelled = 1;
    }
    for (i = 0; i < peer->theirs_streams.size; i++)
        while (peer->theirs_streams.at[i] != NULL) stream_close(peer->theirs_streams.at[i]->of, status, 0, NULL);
    pthread_cond_broadcast(&peer->credit_cond);
    pthread_cond_broadcast(&peer->cancel_cond);
    pthread_cond_broadcast(&peer->state_cond);
    pthread_cond_broadcast(&peer->watch_cond);
    pthread_cond_broadcast(&peer->work_cond);
    {
        struct waiter *it;
        for (it = peer->waiters; it != NULL; it = it->next) pthread_cond_signal(it->cond);
    }
    /* Large writes need not wait for a reader that is gone. Answers may still reach it, if it is a pipeline. */
    wake_leader(peer);
    if (status == PPG_EBROKEN || !peer->is_guest) {
        pthread_mutex_lock(&peer->out_mu);
        out_fail(peer);
        pthread_mutex_unlock(&peer->out_mu);
        if (peer->write_socket && status == PPG_EBROKEN) shutdown(peer->wfd, SHUT_RDWR);
    }
}

/* ==== Failures ==== */

/* Sends an error as the response to a request. */
static ppg_status send_failure(ppg_peer *peer, uint64_t id, const char *code, const char *message, const char *data,
                               int flags) {
    struct text text = {NULL, 0, 0, 0};
    ppg_status status;
    size_t len = strlen(message);
    if (!peer->features[F_FAILURE] || code == NULL) {
        if (len > FAILURE_MAX) len = utf8_prefix(message, FAILURE_MAX);
        return send_chunk(peer, id, DIR_RESPONSE, "cmd.error", message, len, flags);
    }
    if (len > FAILURE_MAX / 8) len = utf8_prefix(message, FAILURE_MAX / 8);
    text_str(&text, "{\"code\":");
    text_quote(&text, code, strlen(code));
    text_str(&text, ",\"message\":");
    text_quote(&text, message, len);
    if (data != NULL && text.len + strlen(data) + 9 <= FAILURE_MAX) {
        text_str(&text, ",\"data\":");
        text_str(&text, data);
    }
    text_str(&text, "}");
    if (text.failed) /* the message is better than nothing */
        status = send_chunk(peer, id, DIR_RESPONSE, "cmd.error", message, len, flags);
    else
        status = send_chunk(peer, id, DIR_RESPONSE, "cmd.failure", text.at, text.len, flags);
    free(text.at);
    return status;
}

/* Takes a cmd.failure apart: the message becomes the data of the reply. What cannot be taken apart stays as it is. */
static void read_failure(chunk *reply) {
    const char *json = (char *)reply->data, *value;
    char *message, *code = NULL, *data = NULL;
    size_t len;
    int good;
    if (reply->len > FAILURE_MAX || !ppg_json_get(json, reply->len, "message", &value, &len)) return;
    message = ppg_json_text(value, len);
    good = message != NULL;
    if (good && ppg_json_get(json, reply->len, "code", &value, &len)) good = (code = ppg_json_text(value, len)) != NULL;
    if (good && ppg_json_get(json, reply->len, "data", &value, &len) && !(len == 4 && memcmp(value, "null", 4) == 0))
        good = (data = json_copy(value, len)) != NULL;
    if (!good) {
        free(message);
        free(code);
        free(data);
        return;
    }
    if (reply->data != (unsigned char *)(reply->command + reply->command_len + 1)) free(reply->data);
    reply->data = (unsigned char *)message;
    reply->len = strlen(message);
    reply->code = code;
    reply->error_data = data;
}

/* ==== Streams ==== */

static uint64_t weight_of(size_t command_len, uint64_t len) { return 64 + command_len + len; }

static void stream_free(ppg_stream *stream) {
    if (stream == NULL) return;
    while (stream->first != NULL) {
        chunk *next = stream->first->next;
        chunk_free(stream->first);
        stream->first = next;
    }
    chunk_free(stream->current);
    free(stream->refusal);
    free(stream->end_reason);
    pthread_cond_destroy(&stream->send_cond);
    pthread_cond_destroy(&stream->receive_cond);
    free(stream);
}

static ppg_stream *stream_new(ppg_peer *peer, uint64_t id, int ours, int can_send, int can_receive) {
    ppg_stream *stream = calloc(1, sizeof *stream);
    if (stream == NULL) return NULL;
    stream->peer = peer;
    stream->node.id = id;
    stream->node.of = stream;
    stream->ours = ours;
    stream->deadline = NEVER;
    stream->can_send = can_send;
    stream->can_receive = can_receive;
    stream->is_ended = !can_receive;
    stream->is_ok = 1;
    stream->credit_each = peer->is_guest && !peer->is_agreed && ours;
    cond_init(&stream->send_cond);
    cond_init(&stream->receive_cond);
    if (!table_add(ours ? &peer->ours : &peer->theirs_streams, &stream->node)) {
        stream_free(stream);
        return NULL;
    }
    stream->is_linked = 1;
    return stream;
}

static int stream_direction(const ppg_stream *stream) { return stream->ours ? DIR_ONE_WAY : DIR_RESPONSE; }

/* With mu: no more parts come. */
static void stream_ended(ppg_stream *stream, ppg_status status, const char *reason) {
    if (stream->is_ended) return;
    stream->is_ended = 1;
    stream->is_ok = status == PPG_OK;
    stream->end_status = status;
    if (reason != NULL) stream->end_reason = copy_of(reason);
    notify(stream->peer, &stream->receive_cond);
}

/* With mu: both directions end. */
static void stream_close(ppg_stream *stream, ppg_status status, int is_ok, const char *reason) {
    ppg_peer *peer = stream->peer;
    if (stream->is_linked) table_remove(stream->ours ? &peer->ours : &peer->theirs_streams, &stream->node);
    stream->is_linked = 0;
    if (stream->is_closed) return;
    stream->is_closed = 1;
    stream->close_status = status;
    if (reason != NULL && stream->refusal == NULL) stream->refusal = copy_of(reason);
    stream_ended(stream, is_ok ? PPG_OK : status == PPG_EENOUGH ? PPG_EPEER : status, reason);
    notify(peer, &stream->send_cond);
}

/* With mu: a chunk of a stream. Takes the chunk. */
static void stream_chunk(ppg_peer *peer, chunk *it) {
    struct table *table = it->direction == DIR_RESPONSE ? &peer->ours : &peer->theirs_streams;
    ppg_stream *stream = table_find(table, it->id);
    const char *what = it->command + 4;
    if (stream == NULL || stream->is_closed) {
        chunk_free(it);
        return;
    }
    if (strcmp(what, "part") == 0) {
        if (stream->can_receive && !stream->is_ended && !stream->enough_sent) {
            uint64_t weight = weight_of(8, it->len);
            if (stream->received - stream->taken > peer->stream_window + weight) {
                stream_ended(stream, PPG_ELIMIT, "the sender does not keep to the window");
                chunk_free(it);
                return;
            }
            stream->received += weight;
            it->next = NULL;
            if (stream->last != NULL)
                stream->last->next = it;
            else
                stream->first = it;
            stream->last = it;
            notify(peer, &stream->receive_cond);
            return;
        }
    } else if (strcmp(what, "end") == 0) {
        if (!stream->ours) stream_ended(stream, it->len == 0 ? PPG_OK : PPG_EABORTED, it->len == 0 ? NULL : (char *)it->data);
    } else if (strcmp(what, "enough") == 0) {
        if (!stream->is_refused) {
            stream->is_refused = 1;
            free(stream->refusal);
            stream->refusal = copy_of((char *)it->data);
            notify(peer, &stream->send_cond);
        }
    } else {
        uint64_t total;
        if (!parse_number((char *)it->data, it->len, &total) || total > stream->sent || total < stream->credited)
            warn(peer, "ignored a cmd.part.credit that is no number, too high, or lower than the last one");
        else {
            stream->credited = total;
            notify(peer, &stream->send_cond);
        }
    }
    chunk_free(it);
}

/* With mu: the time of a stream is over, and with it that of its call. */
static void stream_expired(ppg_stream *stream) {
    ppg_peer *peer = stream->peer;
    if (stream->is_closed) return;
    if (stream->pending != NULL && !stream->pending->one_way)
        give_up(stream->pending, PPG_ETIMEOUT);
    else if (stream->ours && !stream->send_done && !peer->is_closed)
        send_own(peer, stream->node.id, DIR_ONE_WAY, "cmd.end", "the deadline has passed");
    stream_close(stream, PPG_ETIMEOUT, 0, "the deadline has passed");
}

static int can_send_part(void *of) {
    ppg_stream *stream = of;
    return stream->is_closed || stream->is_refused || stream->send_done || stream->peer->is_closed ||
           stream->sent - stream->credited < (stream->peer->is_agreed ? stream->peer->their_stream_window : 1);
}

ppg_status ppg_send_part(ppg_stream *stream, const void *data, size_t len, ppg_error *error) {
    ppg_peer *peer;
    ppg_status status;
    int corked;
    if (stream == NULL || !stream->can_send) return fail(error, PPG_EINVAL, "this stream takes no parts from this side");
    peer = stream->peer;
    pthread_mutex_lock(&peer->mu);
    if (!wait_until(peer, &stream->send_cond, can_send_part, stream, stream->deadline) || is_over(stream->deadline))
        stream_expired(stream);
    if (stream->is_refused || stream->is_closed || peer->is_closed || stream->send_done) {
        status = stream->is_refused  ? PPG_EENOUGH
                 : stream->is_closed ? stream->close_status
                 : peer->is_closed   ? PPG_ECLOSED
                                     : PPG_EINVAL;
        const char *why = stream->refusal != NULL && *stream->refusal ? stream->refusal : ppg_status_text(status);
        fail(error, status, "the part was not sent: %s", has_ended(status) ? "" : why);
        pthread_mutex_unlock(&peer->mu);
        return has_ended(status) ? add_end(peer, error, status) : status;
    }
    stream->sent += weight_of(8, len);
    corked = own_flags(peer);
    if (!corked && is_me(peer)) {
        drop_lead(peer);
        pass_lead(peer);
    }
    pthread_mutex_unlock(&peer->mu);
    status = send_chunk(peer, stream->node.id, stream_direction(stream), "cmd.part", data, len, corked ? corked : SEND_MAY_WAIT);
    if (status == PPG_OK) return fine(error);
    fail(error, status, "the part was not sent: %s", has_ended(status) ? "" : ppg_status_text(status));
    return has_ended(status) ? add_end(peer, error, status) : status;
}

static ppg_status end_parts(ppg_stream *stream, const char *reason, ppg_error *error) {
    ppg_peer *peer;
    ppg_status status = PPG_OK;
    if (stream == NULL || !stream->can_send || !stream->ours)
        return fail(error, PPG_EINVAL, "only parts of a call are ended; those of a reply end with the answer");
    peer = stream->peer;
    pthread_mutex_lock(&peer->mu);
    if (stream->send_done) {
        status = PPG_EINVAL;
    } else if (stream->is_closed) {
        status = stream->close_status;
    } else {
        stream->send_done = 1;
        send_own(peer, stream->node.id, DIR_ONE_WAY, "cmd.end", reason);
        if (!stream->can_receive && table_find(&peer->calls, stream->node.id) == NULL)
            stream_close(stream, PPG_OK, 1, NULL); /* of a one-way */
    }
    pthread_mutex_unlock(&peer->mu);
    if (status == PPG_OK) return fine(error);
    fail(error, status, "the parts were not ended: %s", has_ended(status) ? "" : ppg_status_text(status));
    return has_ended(status) ? add_end(peer, error, status) : status;
}

ppg_status ppg_end_parts(ppg_stream *stream, ppg_error *error) { return end_parts(stream, "", error); }

ppg_status ppg_abort_parts(ppg_stream *stream, const char *reason) {
    return end_parts(stream, reason == NULL || *reason == '\0' ? "the sender has ended the parts early" : reason, NULL);
}

static int has_part(void *of) {
    ppg_stream *stream = of;
    return stream->first != NULL || stream->is_ended || stream->peer->is_closed;
}

ppg_status ppg_next_part(ppg_stream *stream, const void **data, size_t *len, ppg_error *error) {
    ppg_peer *peer;
    ppg_status status;
    if (stream == NULL || !stream->can_receive) return fail(error, PPG_EINVAL, "this stream has no parts for this side");
    peer = stream->peer;
    pthread_mutex_lock(&peer->mu);
    stream->was_asked = 1;
    if (!wait_until(peer, &stream->receive_cond, has_part, stream, stream->deadline)) stream_expired(stream);
    chunk_free(stream->current);
    stream->current = stream->first;
    if (stream->current != NULL) {
        stream->first = stream->current->next;
        if (stream->first == NULL) stream->last = NULL;
        stream->taken += weight_of(8, stream->current->len);
        if (!stream->is_closed && !stream->is_ended &&
            (stream->credit_each || stream->taken - stream->granted >= (peer->stream_window + 1) / 2)) {
            char number[24];
            snprintf(number, sizeof number, "%llu", (unsigned long long)stream->taken);
            stream->granted = stream->taken;
            send_own(peer, stream->node.id, stream_direction(stream), "cmd.part.credit", number);
        }
        *data = stream->current->data;
        *len = stream->current->len;
        pthread_mutex_unlock(&peer->mu);
        return fine(error);
    }
    status = !stream->is_ended ? PPG_ECLOSED : stream->is_ok ? PPG_END : stream->end_status;
    if (status != PPG_END)
        fail(error, status, "the parts are not complete: %s",
             has_ended(status)            ? ""
             : stream->end_reason != NULL ? stream->end_reason
                                          : ppg_status_text(status));
    pthread_mutex_unlock(&peer->mu);
    *data = NULL;
    *len = 0;
    return has_ended(status) ? add_end(peer, error, status) : status;
}

/* With mu. */
static void send_enough(ppg_stream *stream, const char *reason) {
    if (stream->enough_sent || stream->is_closed || !stream->can_receive) return;
    stream->enough_sent = 1;
    send_own(stream->peer, stream->node.id, stream_direction(stream), "cmd.enough", reason);
}

ppg_status ppg_enough(ppg_stream *stream, const char *reason) {
    if (stream == NULL || !stream->can_receive) return PPG_EINVAL;
    pthread_mutex_lock(&stream->peer->mu);
    send_enough(stream, reason == NULL ? "" : reason);
    while (stream->first != NULL) {
        chunk *next = stream->first->next;
        chunk_free(stream->first);
        stream->first = next;
    }
    stream->last = NULL;
    stream_ended(stream, PPG_OK, NULL);
    pthread_mutex_unlock(&stream->peer->mu);
    return PPG_OK;
}

/* ==== Requests ==== */

/* With mu: counts what was taken, and sends credit for it. */
static void take(ppg_peer *peer, uint64_t weight) {
    peer->taken += weight;
    if (peer->features[F_FLOW] && peer->is_agreed && peer->taken - peer->granted >= (peer->window + 1) / 2) {
        char number[24];
        snprintf(number, sizeof number, "%llu", (unsigned long long)peer->taken);
        peer->granted = peer->taken;
        send_own(peer, 0, DIR_ONE_WAY, "cmd.credit", number);
    }
}

static void request_free(ppg_request *request) {
    chunk_free(request->chunk);
    context_clear(&request->context);
    stream_free(request->stream);
    free(request->progress.at);
    free(request);
}

/* With mu. */
static void request_unref(ppg_request *request) {
    ppg_peer *peer = request->peer;
    if (--request->refs > 0) return;
    if (request->chunk->direction == DIR_ONE_WAY) {
        peer->one_ways--;
        if (request->stream != NULL) {
            if (!request->stream->is_ended) send_enough(request->stream, "the handler has ended");
            stream_close(request->stream, PPG_ECLOSED, 0, NULL);
        }
    }
    request_free(request);
    if (peer->is_stopping || peer->is_closed) pthread_cond_broadcast(&peer->state_cond);
}

static void send_progress(ppg_request *request) {
    send_chunk(request->peer, request->node.id, DIR_RESPONSE, "cmd.progress", request->progress.at, request->progress.len,
               SEND_NOW);
    request->progress.len = 0;
}

/* Begins an answer: returns 0 if there is one already, or none is wanted. */
static int answer_begin(ppg_request *request, int *flags) {
    ppg_peer *peer = request->peer;
    int begins;
    pthread_mutex_lock(&peer->mu);
    begins = !request->is_answered && request->chunk->direction == DIR_REQUEST;
    request->is_answered = 1;
    *flags = own_flags(peer);
    if (begins) {
        if (request->progress.len > 0) send_progress(request);
        if (request->stream != NULL) {
            if (request->stream->can_receive && !request->stream->was_asked)
                send_enough(request->stream, "the handler takes no parts");
            stream_close(request->stream, PPG_EINVAL, 0, "the request is answered");
        }
        if (!*flags) {
            *flags = is_me(peer) ? SEND_LEADS : SEND_MAY_WAIT;
        }
    }
    pthread_mutex_unlock(&peer->mu);
    return begins;
}

static ppg_status answer_end(ppg_request *request, ppg_status status) {
    ppg_peer *peer = request->peer;
    pthread_mutex_lock(&peer->mu);
    if (request->is_linked) table_remove(&peer->open, &request->node);
    request->is_linked = 0;
    request_unref(request);
    pthread_mutex_unlock(&peer->mu);
    return status;
}

ppg_status ppg_answer(ppg_request *request, const void *data, size_t len) {
    int flags;
    warn_of_cuts(request->peer, len);
    if (!answer_begin(request, &flags)) return request->chunk->direction == DIR_REQUEST ? PPG_EINVAL : PPG_OK;
    return answer_end(request, send_chunk(request->peer, request->node.id, DIR_RESPONSE, request->chunk->command, data,
                                          len, flags));
}

/* A code is for programs: what has spaces is a message in the wrong place. */
static int is_code(const char *code) {
    size_t len = strlen(code), i;
    for (i = 0; i < len; i++)
        if ((unsigned char)code[i] <= ' ' || code[i] == 0x7F) return 0;
    return len <= 256 && utf8_prefix(code, len) == len;
}

ppg_status ppg_fail(ppg_request *request, const char *code, const char *message, const char *data) {
    int flags;
    ppg_status status = PPG_OK, sent;
    if (message == NULL) message = "";
    if (code != NULL && *code == '\0') code = NULL;
    /* Who calls this may not look at the status: the message arrives all the same. */
    if (code != NULL && !is_code(code)) {
        warn(request->peer, "left out the code of an error of \"%.64s\": one is words joined by _, at most 256 bytes",
             request->chunk->command);
        if (*message == '\0') message = code;
        code = NULL;
        status = PPG_EINVAL;
    }
    if (data != NULL && !json_is_valid(data, strlen(data))) {
        warn(request->peer, "left out the data of an error of \"%.64s\": they are no JSON", request->chunk->command);
        data = NULL;
        status = PPG_EINVAL;
    }
    if (utf8_prefix(message, strlen(message)) != strlen(message)) message = "the error is not UTF-8";
    if (!answer_begin(request, &flags)) {
        if (request->chunk->direction == DIR_REQUEST) return PPG_EINVAL;
        warn(request->peer, "the one-way \"%.64s\" failed: %.300s", request->chunk->command, message);
        return status;
    }
    sent = answer_end(request, send_failure(request->peer, request->node.id, code, message, data, flags));
    return sent == PPG_OK ? status : sent;
}

ppg_status ppg_unknown(ppg_request *request) {
    struct text data = {NULL, 0, 0, 0};
    char message[128];
    struct command *it;
    int count = 0;
    ppg_status status;
    text_str(&data, "{\"commands\":[");
    for (it = request->peer->commands; it != NULL; it = it->next) {
        if (it->name == NULL) continue;
        if (count++ > 0) text_str(&data, ",");
        text_quote(&data, it->name, strlen(it->name));
    }
    text_str(&data, "]}");
    /* Cut between characters. */
    snprintf(message, sizeof message, "unknown command \"%.*s\"",
             (int)utf8_prefix(request->chunk->command, request->chunk->command_len < 64 ? request->chunk->command_len : 64),
             request->chunk->command);
    status = ppg_fail(request, "unknown_command", message, data.failed || count == 0 ? NULL : data.at);
    free(data.at);
    return status;
}

void ppg_request_keep(ppg_request *request) {
    pthread_mutex_lock(&request->peer->mu);
    /* Of a one-way nothing is answered, so nothing would end it. */
    request->is_kept = request->chunk->direction == DIR_REQUEST;
    pthread_mutex_unlock(&request->peer->mu);
}

static void handle_metadata(ppg_request *request, void *user);
static int guest_start(ppg_peer *peer);

/* With mu, which is released meanwhile: runs the handler of a request. */
static void request_run(ppg_request *request) {
    ppg_peer *peer = request->peer;
    int is_open, is_late = request->context.deadline != NEVER && now_ns() >= request->context.deadline;
    int is_cancelled = request->is_cancelled && !peer->is_closed;
    int starts = peer->is_guest && peer->on_start != NULL && !peer->did_start && !request->is_metadata;
    peer->running++;
    /* A host that does not ask for metadata first: the start still comes before all handlers. */
    if (starts) peer->hold = 1;
    pthread_mutex_unlock(&peer->mu);
    if (starts && !guest_start(peer)) {
        pthread_mutex_lock(&peer->mu);
        request->is_kept = 1;
        if (request->is_linked) table_remove(&peer->open, &request->node);
        request->is_linked = 0;
        if (request->chunk->direction == DIR_REQUEST) request_unref(request);
        peer->running--;
        request_unref(request);
        return;
    }
    if (is_cancelled)
        ppg_fail(request, "cancelled", "the request was given up before it was handled", NULL);
    else if (is_late)
        ppg_fail(request, "deadline", "the deadline had passed before the request was handled", NULL);
    else
        request->handler(request, request->user);
    /* What refers to it is counted under mu; without an answer this is the last one that can give it. */
    pthread_mutex_lock(&peer->mu);
    is_open = !request->is_answered && !request->is_kept && request->chunk->direction == DIR_REQUEST;
    if (is_open) {
        pthread_mutex_unlock(&peer->mu);
        ppg_fail(request, "unanswered", "the handler has returned without an answer", NULL);
        pthread_mutex_lock(&peer->mu);
    }
    peer->running--;
    request_unref(request);
    if (peer->queue != NULL) pthread_cond_signal(&peer->work_cond);
}

static void enqueue(ppg_peer *peer, ppg_request *request) {
    request->next = NULL;
    *peer->queue_end = request;
    peer->queue_end = &request->next;
    peer->held += request->weight;
    ensure_spare(peer);
    if (!peer->hold) {
        if (peer->idle > 0)
            pthread_cond_signal(&peer->work_cond);
        else
            pthread_cond_signal(&peer->watch_cond);
    }
}

static void handle_services(ppg_request *request, void *user) {
    struct text text = {NULL, 0, 0, 0};
    struct entry *it;
    (void)user;
    text_str(&text, "{\"services\":[");
    for (it = request->peer->services; it != NULL; it = it->next) {
        if (it != request->peer->services) text_str(&text, ",");
        text_str(&text, it->value);
    }
    text_str(&text, "]}");
    if (text.failed)
        ppg_fail(request, NULL, "no memory", NULL);
    else
        ppg_answer(request, text.at, text.len);
    free(text.at);
}

static void handle_unknown(ppg_request *request, void *user) {
    (void)user;
    ppg_unknown(request);
}

static ppg_request *request_new(ppg_peer *peer, chunk *it, uint64_t weight) {
    struct command *command;
    ppg_request *request = calloc(1, sizeof *request);
    if (request == NULL) return NULL;
    request->peer = peer;
    request->chunk = it;
    request->weight = weight;
    request->node.id = it->id;
    request->node.of = request;
    request->context = peer->context;
    memset(&peer->context, 0, sizeof peer->context);
    peer->context.deadline = NEVER;
    request->handler = handle_unknown;
    for (command = peer->commands; command != NULL; command = command->next) {
        if (command->name != NULL && strcmp(command->name, it->command) == 0 && strlen(command->name) == it->command_len)
            break;
    }
    if (command == NULL)
        for (command = peer->commands; command != NULL && command->name != NULL;) command = command->next;
    if (command != NULL) {
        request->handler = command->handler;
        request->user = command->user;
    }
    if (it->direction == DIR_REQUEST && peer->services != NULL && strcmp(it->command, "GetServices") == 0)
        request->handler = handle_services;
    request->refs = 1 + (it->direction == DIR_REQUEST);
    return request;
}

/* With mu: a request or one-way for a handler. Returns LED_LOST if this thread does not lead any more. */
static enum led incoming(ppg_peer *peer, chunk *it, int is_caller) {
    uint64_t weight = weight_of(it->command_len, it->len), generation = peer->generation;
    int is_request = it->direction == DIR_REQUEST, is_metadata;
    ppg_request *request;
    is_metadata = peer->is_guest && is_request && strcmp(it->command, "GetMetadata") == 0;
    if (peer->held > ((uint64_t)64 << 20)) { /* it does not wait, and this side cannot stop to read */
        take(peer, weight);
        if (is_request)
            send_failure(peer, it->id, "overloaded", "too many requests wait", NULL, own_flags(peer));
        else
            warn(peer, "dropped the one-way \"%.64s\": too many wait", it->command);
        chunk_free(it);
        return LED_DONE;
    }
    if (is_metadata && !peer->knows_theirs) {
        if (read_theirs(peer, (char *)it->data, it->len) < 0) {
            chunk_free(it);
            peer_closed(peer, PPG_ENOMEM, "no memory for the metadata of the host");
            return LED_DONE;
        }
        agree(peer);
        /* Only what comes behind it waits for the start. */
        peer->hold = peer->on_start != NULL || peer->version_count > 0;
    }
    request = request_new(peer, it, weight);
    if (request == NULL || (is_request && !table_add(&peer->open, &request->node))) {
        if (is_request) send_failure(peer, it->id, "overloaded", "no memory", NULL, own_flags(peer));
        free(request);
        chunk_free(it);
        return LED_DONE;
    }
    request->is_linked = is_request;
    if (!is_request) peer->one_ways++;
    if (request->context.is_set && (request->context.send || request->context.receive) && accepts(peer, F_STREAM)) {
        /* Without a reply there are no parts of it. */
        request->stream = peer->theirs_streams.count < 1024
                              ? stream_new(peer, it->id, 0, request->context.receive && is_request, request->context.send)
                              : NULL;
        if (request->stream == NULL) {
            take(peer, weight);
            if (is_request) {
                send_failure(peer, it->id, "overloaded", "too many streams are open", NULL, own_flags(peer));
                table_remove(&peer->open, &request->node);
            } else {
                send_own(peer, it->id, DIR_RESPONSE, "cmd.enough", "too many streams are open");
                peer->one_ways--;
            }
            request_free(request);
            return LED_DONE;
        }
        request->stream->deadline = request->context.deadline;
    }
    if (is_metadata) {
        request->handler = handle_metadata;
        request->is_metadata = 1;
    }
    if (is_caller || (peer->hold && !is_metadata) || peer->queue != NULL || peer->running >= peer->max_running) {
        if (is_metadata) {
            /* In front: the others wait for it. */
            request->next = peer->queue;
            if (peer->queue == NULL) peer->queue_end = &request->next;
            peer->queue = request;
            peer->held += weight;
            ensure_spare(peer);
            pthread_cond_signal(peer->idle > 0 ? &peer->work_cond : &peer->watch_cond);
        } else {
            enqueue(peer, request);
        }
        return LED_DONE;
    }
    take(peer, weight);
    peer->epoch++;
    if (peer->eager > 0) {
        int64_t began;
        /* Handlers have taken long lately: another thread reads meanwhile. */
        drop_lead(peer);
        peer->lead_now = 1;
        ensure_spare(peer);
        flush(peer);
        pthread_cond_signal(&peer->watch_cond);
        began = now_ns();
        request_run(request);
        if (now_ns() - began < 200000) {
            if (peer->eager > 0) peer->eager--;
        } else {
            peer->eager = 16;
        }
        return LED_LOST;
    }
    peer->is_inline = 1;
    if (peer->parked) {
        peer->parked = 0;
        pthread_cond_signal(&peer->watch_cond);
    }
    request_run(request);
    if (peer->generation != generation) return LED_LOST;
    peer->is_inline = 0;
    return LED_DONE;
}

/* With mu: takes a response. */
static void response(ppg_peer *peer, chunk *it) {
    ppg_pending *pending = table_find(&peer->calls, it->id);
    int is_part = strncmp(it->command, "cmd.part", 8) == 0 || strcmp(it->command, "cmd.enough") == 0;
    int is_progress = strcmp(it->command, "cmd.progress") == 0;
    if (pending != NULL && (is_part || is_progress) && is_over(pending->deadline)) {
        give_up(pending, PPG_ETIMEOUT);
        chunk_free(it);
    } else if (is_part) {
        stream_chunk(peer, it);
    } else if (pending == NULL) {
        chunk_free(it);
    } else if (is_progress) {
        const char *json = (char *)it->data, *value;
        size_t len;
        uint64_t done, total = 0;
        char *message = NULL;
        int good = it->len <= PROGRESS_MAX && ppg_json_get(json, it->len, "done", &value, &len) &&
                   parse_number(value, len, &done);
        if (good && ppg_json_get(json, it->len, "total", &value, &len)) good = parse_number(value, len, &total);
        if (good && ppg_json_get(json, it->len, "message", &value, &len))
            good = (message = ppg_json_text(value, len)) != NULL;
        if (!good)
            warn(peer, "ignored a report of progress that is too long or has other values");
        else if (pending->on_progress != NULL)
            pending->on_progress(done, total, message, pending->user);
        free(message);
        chunk_free(it);
    } else if (strcmp(it->command, "cmd.error") == 0) {
        pending_done(pending, PPG_EPEER, it);
    } else if (strcmp(it->command, "cmd.failure") == 0) {
        read_failure(it);
        pending_done(pending, PPG_EPEER, it);
    } else {
        pending_done(pending, PPG_OK, it);
    }
}

static void set_log_level(ppg_peer *peer, const char *level) {
    static const char *const levels[] = {"off", "error", "warn", "info", "debug", "trace"};
    int i;
    for (i = 0; i < 6; i++) {
        if (strcmp(level, levels[i]) != 0) continue;
        peer->log_level = (ppg_log_level)i;
        return;
    }
    warn(peer, "ignored the unknown level \"%.32s\" of the log", level);
}

/* With mu: takes a one-way of the protocol's. */
static void protocol_one_way(ppg_peer *peer, chunk *it) {
    const char *what = it->command + 4;
    if (strncmp(what, "part", 4) == 0 || strcmp(what, "end") == 0 || strcmp(what, "enough") == 0) {
        stream_chunk(peer, it);
        return;
    }
    if (strcmp(what, "context") == 0) {
        int read = accepts(peer, F_CONTEXT) ? context_read(&peer->context, it) : 0;
        if (read < 0) peer_closed(peer, PPG_ENOMEM, "no memory for a context");
        if (read == 0) warn(peer, "ignored a cmd.context that is too long, has other values, or was not agreed");
    } else if (strcmp(what, "credit") == 0) {
        uint64_t total;
        if (!parse_number((char *)it->data, it->len, &total) || total > peer->sent || total < peer->credited) {
            warn(peer, "ignored a cmd.credit that is no number, too high, or lower than the last one");
        } else {
            peer->credited = total;
            notify(peer, &peer->credit_cond);
        }
    } else if (strcmp(what, "cancel") == 0) {
        ppg_request *request = table_find(&peer->open, it->id);
        if (request != NULL && !request->is_cancelled && accepts(peer, F_CANCEL)) {
            ppg_request **at;
            request->is_cancelled = 1;
            if (request->stream != NULL) stream_close(request->stream, PPG_ECANCELLED, 0, "the call was given up");
            pthread_cond_broadcast(&peer->cancel_cond);
            /* One that waits for a handler is answered at once. */
            for (at = &peer->queue; *at != NULL && !peer->hold; at = &(*at)->next) {
                if (*at != request) continue;
                *at = request->next;
                if (*at == NULL) peer->queue_end = at;
                peer->held -= request->weight;
                take(peer, request->weight);
                send_failure(peer, it->id, "cancelled", "the request was given up before it was handled", NULL,
                             own_flags(peer));
                table_remove(&peer->open, &request->node);
                request_free(request);
                break;
            }
        }
    } else if (strcmp(what, "stop") == 0 && peer->is_guest) {
        peer->is_stopping = 1;
        pthread_cond_broadcast(&peer->state_cond);
        pthread_cond_broadcast(&peer->cancel_cond);
    } else if (strcmp(what, "log_level") == 0 && peer->is_guest) {
        set_log_level(peer, (char *)it->data);
    }
    chunk_free(it);
}

/* With mu: takes a chunk. */
static enum led dispatch(ppg_peer *peer, chunk *it, int is_caller) {
    int is_protocol = strncmp(it->command, "cmd.", 4) == 0;
    peer->was_called = 1;
    if (peer->context.is_set && (it->direction == DIR_RESPONSE || is_protocol || it->id != peer->context.id))
        context_clear(&peer->context);
    if (it->direction == DIR_RESPONSE) {
        response(peer, it);
        return LED_DONE;
    }
    if (!is_protocol) return incoming(peer, it, is_caller);
    if (it->direction == DIR_ONE_WAY) {
        protocol_one_way(peer, it);
        return LED_DONE;
    }
    if (strcmp(it->command, "cmd.ping") == 0) {
        send_own(peer, it->id, DIR_RESPONSE, "cmd.ping", "");
    } else {
        char message[160];
        snprintf(message, sizeof message, "the protocol has no request \"%.64s\"", it->command);
        message[utf8_prefix(message, strlen(message))] = '\0';
        send_failure(peer, it->id, "unknown_command", message, NULL, own_flags(peer));
    }
    chunk_free(it);
    return LED_DONE;
}

/* With mu: a chunk was too large, or of another direction. */
static void skipped(ppg_peer *peer) {
    struct reader *it = &peer->reader;
    char message[160];
    int is_command = it->skip == SKIP_COMMAND, is_protocol;
    if (it->skip == SKIP_DIRECTION) return;
    context_clear(&peer->context);
    is_protocol = it->command_len >= 4 && memcmp(it->command, "cmd.", 4) == 0;
    snprintf(message, sizeof message, "the %s has %llu bytes, and %llu is the limit", is_command ? "command" : "buffer",
             (unsigned long long)(is_command ? it->command_len : it->len),
             (unsigned long long)(is_command ? it->command_limit : it->buffer_limit));
    if (it->direction == DIR_RESPONSE || is_protocol) {
        ppg_pending *pending = it->direction == DIR_RESPONSE ? table_find(&peer->calls, it->id) : NULL;
        if (!is_command && it->command_len == 8 && memcmp(it->command, "cmd.part", 8) == 0) {
            ppg_stream *stream = table_find(pending != NULL ? &peer->ours : &peer->theirs_streams, it->id);
            if (stream != NULL) stream_ended(stream, PPG_ELIMIT, message);
        } else if (pending != NULL && !(it->command_len == 12 && memcmp(it->command, "cmd.progress", 12) == 0)) {
            pending_done(pending, PPG_ELIMIT, NULL);
        } else if (it->direction == DIR_REQUEST) {
            send_failure(peer, it->id, "too_large", message, NULL, own_flags(peer));
        }
        return;
    }
    if (it->direction == DIR_REQUEST)
        send_failure(peer, it->id, "too_large", message, NULL, own_flags(peer));
    else
        warn(peer, "skipped a one-way: %s", message);
    take(peer, 64 + it->command_len + it->len);
}

/* ==== Reading ==== */

static ssize_t read_some(ppg_peer *peer, void *to, size_t room) {
    ssize_t n;
    do
        n = peer->read_socket ? recv(peer->rfd, to, room, MSG_DONTWAIT) : read(peer->rfd, to, room);
    while (n < 0 && errno == EINTR);
    return n;
}

static int nothing_yet(ssize_t n) { return n < 0 && (errno == EAGAIN || errno == EWOULDBLOCK); }

/* Reads, and waits until there is something to read, a wake-up, or the deadline. -1 with EAGAIN if nothing was read. */
static ssize_t read_or_wait(ppg_peer *peer, void *to, size_t room, int pauses, int64_t deadline) {
    struct pollfd fds[2];
    int64_t began;
    ssize_t n;
    if (!pauses) {
        n = read_some(peer, to, room);
        if (!nothing_yet(n)) return n;
    }
    began = now_ns();
    if (!pauses && peer->spin_skips == 0) {
        do {
            n = read_some(peer, to, room);
            if (!nothing_yet(n)) {
                peer->spin_misses = 0;
                return n;
            }
        } while (now_ns() - began < SPIN_NS);
        /* Waits are longer now: looks again after twice as many as the last time. */
        if (peer->spin_misses < 10) peer->spin_misses++;
        peer->spin_skips = 1U << peer->spin_misses;
    }
    fds[0].fd = pauses ? -1 : peer->rfd;
    fds[1].fd = peer->wake_read;
    fds[0].events = fds[1].events = POLLIN;
    fds[0].revents = fds[1].revents = 0;
    poll(fds, 2, ms_until(deadline));
    if (peer->spin_skips > 0 && peer->spin_skips != UINT_MAX) {
        peer->spin_skips--;
        if (now_ns() - began < SPIN_NS) peer->spin_skips /= 2;
    }
    if (fds[1].revents) {
        char bytes[64];
        while (read(peer->wake_read, bytes, sizeof bytes) > 0) continue;
    }
    if (fds[0].revents) return read_some(peer, to, room);
    errno = EAGAIN;
    return -1;
}

static void step_aside(ppg_peer *peer) {
    peer->generation++;
    peer->leading = 0;
}

/* With mu, which is released meanwhile: reads until `until(arg)`, or the end of the connection. */
static enum led lead(ppg_peer *peer, int is_caller, int (*until)(void *), void *arg, int64_t deadline) {
    uint64_t generation = ++peer->generation;
    peer->leading = 1;
    peer->leader = pthread_self();
    peer->is_inline = 0;
    if (!is_caller) ensure_spare(peer);
    while (!peer->is_closed && !peer->shutdown) {
        int had_waiters = peer->waiters != NULL, took = 0, pauses;
        ssize_t n;
        unsigned char *to;
        size_t room;
        while (peer->rpos < peer->rend) {
            const unsigned char *at = peer->rbuf + peer->rpos;
            enum event event = reader_take(&peer->reader, &at, peer->rbuf + peer->rend);
            peer->rpos = (size_t)(at - peer->rbuf);
            peer->more = peer->rpos < peer->rend;
            if (event == EVENT_NONE) break;
            if (event == EVENT_CHUNK) {
                chunk *it = peer->reader.chunk;
                peer->reader.chunk = NULL;
                took = 1;
                if (dispatch(peer, it, is_caller) == LED_LOST) return LED_LOST;
            } else if (event == EVENT_SKIPPED) {
                skipped(peer);
            } else if (event == EVENT_BROKEN) {
                char reason[200];
                snprintf(reason, sizeof reason, "broken chunk at byte %llu of the stream, in its %s: %s",
                         (unsigned long long)peer->reader.bad_offset, peer->reader.bad_field, peer->reader.bad_kind);
                peer_closed(peer, PPG_EBROKEN, reason);
            } else {
                peer_closed(peer, PPG_ENOMEM, "no memory for a chunk");
            }
            if (peer->is_closed || (until != NULL && until(arg))) goto out;
            pauses = peer->held > peer->window && peer->calls.count == 0 && peer->ours.count == 0;
            if (pauses) break;
        }
        /* A chunk without a buffer that ends exactly here is complete only when it is looked at. */
        if (peer->reader.field == IN_BUFFER && peer->reader.len == peer->reader.got) {
            const unsigned char *at = peer->rbuf;
            if (reader_take(&peer->reader, &at, at) == EVENT_CHUNK) {
                chunk *it = peer->reader.chunk;
                peer->reader.chunk = NULL;
                peer->more = 0;
                took = 1;
                if (dispatch(peer, it, is_caller) == LED_LOST) return LED_LOST;
                if (peer->is_closed || (until != NULL && until(arg))) goto out;
            }
        }
        peer->more = 0;
        if (!flush(peer)) {
            peer_closed(peer, PPG_ECLOSED, "the other side does not read any more");
            goto out;
        }
        if (until != NULL && until(arg)) goto out;
        if (!is_caller && took && had_waiters && peer->waiters == NULL) goto out;
        pauses = peer->held > peer->window && peer->calls.count == 0 && peer->ours.count == 0;
        peer->is_paused = pauses;
        if (!pauses && peer->rpos < peer->rend) continue;
        if (!pauses) peer->rpos = peer->rend = 0;
        /* Straight into a large buffer. */
        to = peer->rbuf;
        room = READ_SIZE;
        if (!pauses && peer->reader.field == IN_BUFFER && peer->reader.skip == SKIP_NOT && peer->reader.len - peer->reader.got >= 16384) {
            if (!reader_grow(&peer->reader)) {
                peer_closed(peer, PPG_ENOMEM, "no memory for a chunk");
                goto out;
            }
            to = peer->reader.chunk->data + peer->reader.got;
            room = (size_t)(peer->reader.cap - peer->reader.got);
        }
        peer->is_polling = 1;
        pthread_mutex_unlock(&peer->mu);
        n = read_or_wait(peer, to, room, pauses, deadline);
        {
            int error = errno;
            pthread_mutex_lock(&peer->mu);
            peer->is_polling = 0;
            peer->woken = 0;
            if (n < 0 && error != EAGAIN && error != EWOULDBLOCK) n = 0; /* as if it had ended */
        }
        if (n == 0) {
            if (reader_end(&peer->reader) == EVENT_BROKEN)
                peer_closed(peer, PPG_EBROKEN, "the stream ended inside a chunk");
            else
                peer_closed(peer, PPG_ECLOSED, "the other side has closed the connection");
            goto out;
        }
        if (n > 0 && to == peer->rbuf) {
            peer->rend = (size_t)n;
        } else if (n > 0) {
            peer->reader.got += (uint64_t)n;
            peer->reader.offset += (uint64_t)n;
        }
        if (n < 0 && deadline != NEVER && now_ns() >= deadline) goto out;
        if (until != NULL && until(arg)) goto out;
    }
out:
    if (peer->generation != generation) return LED_LOST;
    peer->more = 0;
    flush(peer);
    step_aside(peer);
    return LED_DONE;
}

/* ==== Threads of the library ==== */

static void *serve(void *of) {
    ppg_peer *peer = of;
    pthread_mutex_lock(&peer->mu);
    while (!peer->shutdown) {
        if (peer->queue != NULL && peer->running < peer->max_running && (!peer->hold || peer->queue->is_metadata)) {
            ppg_request *request = peer->queue;
            peer->queue = request->next;
            if (peer->queue == NULL) peer->queue_end = &peer->queue;
            peer->held -= request->weight;
            if (peer->is_paused) wake_leader(peer);
            take(peer, request->weight);
            ensure_spare(peer);
            request_run(request);
            continue;
        }
        if (peer->lead_now && !peer->leading && !peer->is_closed) {
            peer->lead_now = 0;
            /* One that has left the lead for its handler takes it again, if no other has. */
            while (lead(peer, 0, NULL, NULL, NEVER) == LED_LOST && !peer->leading && !peer->is_closed && !peer->shutdown &&
                   peer->waiters == NULL && peer->queue == NULL)
                continue;
            pass_lead(peer);
            continue;
        }
        if (peer->is_closed && peer->queue == NULL && peer->running == 0 && peer->is_guest) {
            pthread_cond_broadcast(&peer->state_cond);
        }
        if (peer->watching) {
            peer->idle++;
            pthread_cond_wait(&peer->work_cond, &peer->mu);
            peer->idle--;
            continue;
        }
        /* The watch: looks at each tick whether the leader has got stuck, or has left. */
        peer->watching = 1;
        if (peer->is_closed || (peer->quiet_ticks >= 8 && peer->leading && !peer->is_inline)) {
            peer->parked = 1;
            pthread_cond_wait(&peer->watch_cond, &peer->mu);
            peer->parked = 0;
            peer->watching = 0;
            peer->quiet_ticks = 0;
            peer->seen_epoch = peer->epoch - 1;
        } else {
            int late = !cond_wait(&peer->watch_cond, &peer->mu, now_ns() + TICK_NS);
            peer->watching = 0;
            if (late && peer->seen_epoch == peer->epoch && !peer->is_closed) {
                if (peer->leading && peer->is_inline) {
                    drop_lead(peer);
                    peer->eager = 16;
                    flush(peer);
                    peer->lead_now = 1;
                } else if (!peer->leading && peer->waiters == NULL) {
                    peer->lead_now = 1;
                } else if (!peer->leading) {
                    pthread_cond_signal(peer->waiters->cond);
                }
            }
            if (late) {
                peer->quiet_ticks = peer->seen_epoch == peer->epoch ? peer->quiet_ticks + 1 : 0;
                peer->seen_epoch = peer->epoch;
            }
        }
    }
    pthread_mutex_unlock(&peer->mu);
    return NULL;
}

static int spawn_thread(ppg_peer *peer) {
    if (peer->thread_count == peer->thread_cap) {
        size_t cap = peer->thread_cap * 2 + 4;
        pthread_t *threads = realloc(peer->threads, cap * sizeof *threads);
        if (threads == NULL) return 0;
        peer->threads = threads;
        peer->thread_cap = cap;
    }
    if (pthread_create(&peer->threads[peer->thread_count], NULL, serve, peer) != 0) return 0;
    peer->thread_count++;
    return 1;
}

/* With mu: there has to be a thread that watches while this one leads or handles. */
static void ensure_spare(ppg_peer *peer) {
    if (peer->watching || peer->shutdown) return;
    if (peer->idle > 0)
        pthread_cond_signal(&peer->work_cond);
    else if (peer->thread_count < peer->max_running + 2) spawn_thread(peer);
}

/* ==== Calls ==== */

static ppg_status refuse(ppg_peer *peer, const char *command, ppg_error *error) {
    size_t len;
    if (command == NULL) return fail(error, PPG_EINVAL, "a command is needed");
    len = strlen(command);
    if (utf8_prefix(command, len) != len) return fail(error, PPG_EINVAL, "the command is not UTF-8");
    if (strncmp(command, "cmd.", 4) == 0)
        return fail(error, PPG_ERESERVED, "\"%.64s\" belongs to the protocol: it sends what begins with cmd. by itself",
                    command);
    if (peer->reader.format == FORMAT_CLASSIC && strchr(command, ' ') != NULL)
        return fail(error, PPG_EINVAL, "\"%.64s\" has a space, which the classic format cannot hold", command);
    return PPG_OK;
}

static int has_credit(void *of) {
    ppg_peer *peer = of;
    return peer->is_closed || !peer->features[F_FLOW] || !peer->is_agreed ||
           peer->sent - peer->credited < peer->their_window;
}

/* The chunk cmd.context, if there is anything to say. */
static ppg_status make_context(ppg_peer *peer, const ppg_call_options *options, uint64_t id, int64_t deadline, int streams,
                        struct text *out) {
    struct text json = {NULL, 0, 0, 0};
    char header[HEADER_MAX + 16];
    size_t i;
    ppg_status status;
    const struct entry *it = options->parent != NULL ? options->parent->context.values : NULL;
    int values = 0;
    if (deadline != NEVER) {
        int ms = ms_until(deadline);
        text_str(&json, "{\"deadline_ms\":");
        text_number(&json, (uint64_t)(ms < 0 ? 0 : ms));
    }
    if (streams) {
        text_str(&json, json.len > 0 ? "," : "{");
        text_str(&json, "\"stream\":\"");
        text_str(&json, !options->receive_parts ? "send" : options->send_parts ? "send receive" : "receive");
        text_str(&json, "\"");
    }
    if (options->on_progress != NULL && peer->features[F_PROGRESS] && !options->one_way) {
        text_str(&json, json.len > 0 ? "," : "{");
        text_str(&json, "\"progress\":true");
    }
    for (; it != NULL; it = it->next) {
        int again = 0;
        for (i = 0; options->values != NULL && options->values[i] != NULL; i += 2)
            again |= strcmp(options->values[i], it->key) == 0;
        if (again) continue;
        text_str(&json, values++ > 0 ? "," : json.len > 0 ? ",\"values\":{" : "{\"values\":{");
        text_quote(&json, it->key, strlen(it->key));
        text_str(&json, ":");
        text_quote(&json, it->value, strlen(it->value));
    }
    for (i = 0; options->values != NULL && options->values[i] != NULL && options->values[i + 1] != NULL; i += 2) {
        text_str(&json, values++ > 0 ? "," : json.len > 0 ? ",\"values\":{" : "{\"values\":{");
        text_quote(&json, options->values[i], strlen(options->values[i]));
        text_str(&json, ":");
        text_quote(&json, options->values[i + 1], strlen(options->values[i + 1]));
    }
    if (values > 0) text_str(&json, "}");
    if (json.len > 0) text_str(&json, "}");
    if (json.len > 0 && json.len <= CONTEXT_MAX) {
        text_add(out, header, put_header(header, peer->reader.format, id, DIR_ONE_WAY, "cmd.context", 11, json.len));
        text_add(out, json.at, json.len);
    }
    status = json.failed || out->failed ? PPG_ENOMEM : json.len > CONTEXT_MAX ? PPG_ELIMIT : PPG_OK;
    free(json.at);
    return status;
}

/* Sends a request or one-way. *pending is made for a request, and for a one-way with a stream. */
static ppg_status begin(ppg_peer *peer, const char *command, const void *data, size_t len,
                        const ppg_call_options *options, ppg_pending **out, ppg_error *error) {
    static const ppg_call_options none = PPG_CALL_OPTIONS_INIT;
    struct text context = {NULL, 0, 0, 0};
    struct iovec before;
    ppg_pending *pending = NULL;
    ppg_status status;
    uint64_t id = 0, weight;
    int64_t deadline;
    int streams, needs_id, flags, timeout_ms;
    if (options == NULL) options = &none;
    status = refuse(peer, command, error);
    if (status != PPG_OK) return status;
    warn_of_cuts(peer, len);
    streams = options->send_parts || (options->receive_parts && !options->one_way);
    deadline = in_ms(options->timeout_ms);
    timeout_ms = options->timeout_ms;
    if (options->parent != NULL && options->parent->context.deadline < deadline) {
        deadline = options->parent->context.deadline;
        timeout_ms = ms_until(deadline);
    }
    pthread_mutex_lock(&peer->mu);
    if (!peer->is_started) {
        pthread_mutex_unlock(&peer->mu);
        return fail(error, PPG_EINVAL, "\"%.64s\" was not sent: the other side is not started", command);
    }
    if (streams && !peer->features[F_STREAM]) {
        pthread_mutex_unlock(&peer->mu);
        return fail(error, PPG_EUNSUPPORTED, "\"%.64s\" was not sent: the other side does not support streams", command);
    }
    weight = weight_of(strlen(command), len);
    if (!has_credit(peer) && !wait_until(peer, &peer->credit_cond, has_credit, peer, deadline)) {
        pthread_mutex_unlock(&peer->mu);
        return fail(error, PPG_ETIMEOUT, "\"%.64s\" was not sent: the other side takes no more requests", command);
    }
    if (peer->is_closed) {
        status = fail(error, peer->close_status, "\"%.64s\" was not sent: ", command);
        pthread_mutex_unlock(&peer->mu);
        return add_end(peer, error, status);
    }
    needs_id = !options->one_way || streams || (peer->features[F_CONTEXT] && (deadline != NEVER || options->values != NULL ||
               (options->parent != NULL && options->parent->context.values != NULL)));
    if (needs_id) id = peer->next_id++;
    if (needs_id && peer->features[F_CONTEXT]) status = make_context(peer, options, id, deadline, streams, &context);
    if (status != PPG_OK) {
        pthread_mutex_unlock(&peer->mu);
        free(context.at);
        if (status == PPG_ENOMEM) return fail(error, status, "\"%.64s\" was not sent: no memory", command);
        return fail(error, status, "\"%.64s\" was not sent: its values are over %d bytes", command, CONTEXT_MAX);
    }
    if (out != NULL) {
        pending = calloc(1, sizeof *pending);
        if (pending != NULL) {
            cond_init(&pending->cond);
            pending->peer = peer;
            pending->node.id = id;
            pending->node.of = pending;
            pending->deadline = deadline;
            pending->timeout_ms = timeout_ms;
            pending->one_way = options->one_way;
            pending->on_progress = options->on_progress;
            pending->user = options->user;
            pending->command = copy_of(command);
            if (streams) pending->stream = stream_new(peer, id, 1, options->send_parts, options->receive_parts && !options->one_way);
            if (pending->stream != NULL) {
                pending->stream->pending = pending;
                pending->stream->deadline = deadline;
            }
            if (!options->one_way) pending->is_linked = table_add(&peer->calls, &pending->node);
        }
        if (pending == NULL || pending->command == NULL || (streams && pending->stream == NULL) ||
            (!options->one_way && !pending->is_linked)) {
            pthread_mutex_unlock(&peer->mu);
            free(context.at);
            ppg_pending_free(pending);
            return fail(error, PPG_ENOMEM, "\"%.64s\" was not sent: no memory", command);
        }
    }
    peer->sent += weight;
    flags = own_flags(peer);
    /* A thread that reads must not wait for room. */
    if (!flags) flags = is_me(peer) ? SEND_LEADS : SEND_MAY_WAIT;
    pthread_mutex_unlock(&peer->mu);
    before.iov_base = context.at;
    before.iov_len = context.len;
    status = send_two(peer, context.len > 0 ? &before : NULL, id, options->one_way ? DIR_ONE_WAY : DIR_REQUEST, command,
                      data, len, flags, deadline);
    free(context.at);
    if (status != PPG_OK) {
        pthread_mutex_lock(&peer->mu);
        fail(error, status, "\"%.64s\" was not sent: %s", command, has_ended(status) ? "" : ppg_status_text(status));
        /* It counts as sent only if its first byte was. */
        if (status == PPG_ETIMEOUT) peer->sent -= weight;
        if (pending != NULL) pending_done(pending, status, NULL);
        pthread_mutex_unlock(&peer->mu);
        ppg_pending_free(pending);
        return has_ended(status) ? add_end(peer, error, status) : status;
    }
    if (out != NULL) *out = pending;
    return fine(error);
}

ppg_status ppg_begin(ppg_peer *peer, const char *command, const void *data, size_t len,
                     const ppg_call_options *options, ppg_pending **pending, ppg_error *error) {
    if (pending != NULL) *pending = NULL;
    if (peer == NULL || pending == NULL) return fail(error, PPG_EINVAL, "an argument is NULL");
    return begin(peer, command, data, len, options, pending, error);
}

ppg_status ppg_notify(ppg_peer *peer, const char *command, const void *data, size_t len, ppg_error *error) {
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    options.one_way = 1;
    if (peer == NULL) return fail(error, PPG_EINVAL, "an argument is NULL");
    return begin(peer, command, data, len, &options, NULL, error);
}

/* With mu: gives a call up. */
static void give_up(ppg_pending *pending, ppg_status status) {
    ppg_peer *peer = pending->peer;
    if (pending->is_done || pending->one_way) return;
    if (peer->features[F_CANCEL] && !peer->is_closed) send_own(peer, pending->node.id, DIR_ONE_WAY, "cmd.cancel", "");
    pending_done(pending, status, NULL);
}

ppg_status ppg_wait(ppg_pending *pending, int timeout_ms, ppg_reply **reply, ppg_error *error) {
    ppg_peer *peer;
    ppg_status status;
    int64_t until;
    if (reply != NULL) *reply = NULL;
    if (pending == NULL || pending->one_way) return fail(error, PPG_EINVAL, "this is no call that gets a reply");
    peer = pending->peer;
    until = in_ms(timeout_ms);
    if (pending->deadline < until) until = pending->deadline;
    pthread_mutex_lock(&peer->mu);
    if (!wait_until(peer, &pending->cond, pending_is_done, pending, until)) {
        if (until != pending->deadline) {
            pthread_mutex_unlock(&peer->mu);
            return fail(error, PPG_ETIMEOUT, "no reply to \"%.64s\" within %d ms; the call is still open", pending->command,
                        timeout_ms);
        }
        give_up(pending, PPG_ETIMEOUT);
    }
    status = pending->status;
    switch (status) {
    case PPG_OK: fine(error); break;
    case PPG_EPEER:
        fail(error, status, "%.400s", pending->reply != NULL ? (char *)pending->reply->data : "");
        if (error != NULL) error->message[utf8_prefix(error->message, strlen(error->message))] = '\0';
        break;
    case PPG_ETIMEOUT:
        fail(error, status, "no reply to \"%.64s\" within %d ms", pending->command, pending->timeout_ms);
        break;
    case PPG_ELIMIT: fail(error, status, "the reply to \"%.64s\" is over a limit of this side", pending->command); break;
    case PPG_ECANCELLED: fail(error, status, "the call of \"%.64s\" was given up", pending->command); break;
    default:
        fail(error, status, "no reply to \"%.64s\": %s", pending->command, has_ended(status) ? "" : ppg_status_text(status));
        break;
    }
    if (reply != NULL) {
        *reply = pending->reply;
        pending->reply = NULL;
    }
    pthread_mutex_unlock(&peer->mu);
    return has_ended(status) ? add_end(peer, error, status) : status;
}

ppg_status ppg_call(ppg_peer *peer, const char *command, const void *data, size_t len,
                    const ppg_call_options *options, ppg_reply **reply, ppg_error *error) {
    ppg_pending *pending = NULL;
    ppg_status status;
    if (reply != NULL) *reply = NULL;
    if (peer == NULL) return fail(error, PPG_EINVAL, "an argument is NULL");
    if (options != NULL && (options->one_way || options->send_parts || options->receive_parts))
        return fail(error, PPG_EINVAL, "ppg_call makes calls without parts: use ppg_begin");
    status = begin(peer, command, data, len, options, &pending, error);
    if (status != PPG_OK) return status;
    status = ppg_wait(pending, -1, reply, error);
    ppg_pending_free(pending);
    return status;
}

void ppg_cancel(ppg_pending *pending) {
    if (pending == NULL) return;
    pthread_mutex_lock(&pending->peer->mu);
    give_up(pending, PPG_ECANCELLED);
    pthread_mutex_unlock(&pending->peer->mu);
}

ppg_stream *ppg_pending_stream(ppg_pending *pending) { return pending == NULL ? NULL : pending->stream; }

void ppg_pending_free(ppg_pending *pending) {
    if (pending == NULL) return;
    pthread_mutex_lock(&pending->peer->mu);
    give_up(pending, PPG_ECANCELLED);
    if (pending->stream != NULL && !pending->stream->is_closed) {
        if (!pending->stream->send_done && !pending->peer->is_closed)
            send_own(pending->peer, pending->node.id, DIR_ONE_WAY, "cmd.end", "the sender has ended the parts early");
        stream_close(pending->stream, PPG_ECANCELLED, 0, NULL);
    }
    pthread_mutex_unlock(&pending->peer->mu);
    stream_free(pending->stream);
    chunk_free(pending->reply);
    pthread_cond_destroy(&pending->cond);
    free(pending->command);
    free(pending);
}

const void *ppg_reply_data(const ppg_reply *reply) { return reply == NULL ? "" : (const void *)reply->data; }
const char *ppg_reply_text(const ppg_reply *reply) { return reply == NULL ? "" : (const char *)reply->data; }
size_t ppg_reply_len(const ppg_reply *reply) { return reply == NULL ? 0 : reply->len; }
const char *ppg_reply_code(const ppg_reply *reply) { return reply == NULL || reply->code == NULL ? "" : reply->code; }
const char *ppg_reply_error_data(const ppg_reply *reply) {
    return reply == NULL || reply->error_data == NULL ? "" : reply->error_data;
}
void ppg_reply_free(ppg_reply *reply) { chunk_free(reply); }

/* ==== Requests, for handlers ==== */

ppg_peer *ppg_request_peer(ppg_request *request) { return request->peer; }
const char *ppg_request_command(const ppg_request *request) { return request->chunk->command; }
const void *ppg_request_data(const ppg_request *request) { return request->chunk->data; }
size_t ppg_request_len(const ppg_request *request) { return request->chunk->len; }
int ppg_request_is_one_way(const ppg_request *request) { return request->chunk->direction == DIR_ONE_WAY; }
ppg_stream *ppg_request_stream(ppg_request *request) { return request->stream; }

const char *ppg_request_text(const ppg_request *request) {
    const chunk *it = request->chunk;
    if (memchr(it->data, 0, it->len) != NULL || utf8_prefix(it->data, it->len) != it->len) return NULL;
    return (const char *)it->data;
}

const char *ppg_request_value(const ppg_request *request, const char *name) {
    return entry_get(request->context.values, name);
}

int ppg_request_time_left(const ppg_request *request) { return ms_until(request->context.deadline); }

int ppg_request_cancelled(ppg_request *request) { return ppg_request_wait_cancelled(request, 0) == 1; }

int ppg_request_wait_cancelled(ppg_request *request, int timeout_ms) {
    ppg_peer *peer = request->peer;
    int64_t until = in_ms(timeout_ms), deadline = request->context.deadline;
    int result;
    pthread_mutex_lock(&peer->mu);
    if (timeout_ms != 0 && is_me(peer)) {
        drop_lead(peer);
        flush(peer);
        peer->lead_now = 1;
        pthread_cond_signal(&peer->watch_cond);
    }
    for (;;) {
        int64_t now = now_ns();
        result = request->is_cancelled || peer->is_closed || now >= deadline ? 1 : peer->is_stopping ? 2 : 0;
        if (result != 0 || now >= until) break;
        cond_wait(&peer->cancel_cond, &peer->mu, until < deadline ? until : deadline);
    }
    pthread_mutex_unlock(&peer->mu);
    return result;
}

void ppg_progress(ppg_request *request, uint64_t done, uint64_t total, const char *message) {
    ppg_peer *peer = request->peer;
    struct text *text = &request->progress;
    int64_t now;
    if (!request->context.progress || request->chunk->direction != DIR_REQUEST || !accepts(peer, F_PROGRESS)) return;
    pthread_mutex_lock(&peer->mu);
    text->len = 0;
    text_str(text, "{\"done\":");
    text_number(text, done);
    if (total > 0) {
        text_str(text, ",\"total\":");
        text_number(text, total);
    }
    if (message != NULL) {
        text_str(text, ",\"message\":");
        text_quote(text, message, utf8_prefix(message, strlen(message) < 512 ? strlen(message) : 512));
    }
    text_str(text, "}");
    now = now_ns();
    if (text->failed || request->is_answered) {
        text->len = 0;
    } else if (now - request->progress_at >= 50000000) {
        request->progress_at = now;
        send_progress(request);
    }
    pthread_mutex_unlock(&peer->mu);
}

/* ==== Settings ==== */

static ppg_peer *peer_new(const char *name, int is_guest) {
    ppg_peer *peer = calloc(1, sizeof *peer);
    if (peer == NULL) return NULL;
    pthread_mutex_init(&peer->mu, NULL);
    pthread_mutex_init(&peer->out_mu, NULL);
    cond_init(&peer->watch_cond);
    cond_init(&peer->work_cond);
    cond_init(&peer->credit_cond);
    cond_init(&peer->state_cond);
    cond_init(&peer->cancel_cond);
    cond_init(&peer->out_cond);
    cond_init(&peer->room_cond);
    peer->is_guest = is_guest;
    peer->max_running = 64;
    peer->command_limit = 65536;
    peer->buffer_limit = (size_t)256 << 20;
    peer->window = DEFAULT_WINDOW;
    peer->stream_window = DEFAULT_STREAM_WINDOW;
    peer->their_window = DEFAULT_WINDOW;
    peer->their_stream_window = DEFAULT_STREAM_WINDOW;
    peer->grace_ms = 5000;
    peer->start_timeout_ms = 10000;
    peer->log_level = PPG_LOG_INFO;
    peer->rfd = peer->wfd = peer->wake_read = peer->wake_write = peer->err_fd = -1;
    peer->next_id = 1;
    peer->seen_epoch = UINT64_MAX;
    peer->queue_end = &peer->queue;
    peer->context.deadline = NEVER;
    peer->name = copy_of(name);
    peer->rbuf = malloc(READ_SIZE);
    if (peer->name == NULL || peer->rbuf == NULL) {
        ppg_free(peer);
        return NULL;
    }
    return peer;
}

static void close_fd(int *fd) {
    if (*fd >= 0) close(*fd);
    *fd = -1;
}

/* Ends the threads of the library. Handlers have to have returned. */
static void peer_join(ppg_peer *peer) {
    size_t i, count;
    pthread_mutex_lock(&peer->mu);
    peer->shutdown = 1;
    peer->is_polling = 1;
    wake_leader(peer);
    pthread_cond_broadcast(&peer->watch_cond);
    pthread_cond_broadcast(&peer->work_cond);
    count = peer->thread_count;
    pthread_mutex_unlock(&peer->mu);
    for (i = 0; i < count; i++) pthread_join(peer->threads[i], NULL);
    peer->thread_count = 0;
    pthread_mutex_lock(&peer->out_mu);
    out_fail(peer);
    pthread_mutex_unlock(&peer->out_mu);
    if (peer->has_flusher) pthread_join(peer->flusher, NULL);
    peer->has_flusher = 0;
}

static void peer_free(ppg_peer *peer) {
    unsigned i;
    struct command *command, *next;
    peer_join(peer);
    while (peer->queue != NULL) {
        ppg_request *request = peer->queue;
        peer->queue = request->next;
        request_free(request);
    }
    if (peer->wfd != peer->rfd) close_fd(&peer->wfd);
    close_fd(&peer->rfd);
    close_fd(&peer->wake_read);
    close_fd(&peer->wake_write);
    close_fd(&peer->err_fd);
    for (command = peer->commands; command != NULL; command = next) {
        next = command->next;
        free(command->name);
        free(command);
    }
    entries_free(peer->metadata);
    entries_free(peer->env);
    entries_free(peer->services);
    entries_free(peer->theirs);
    context_clear(&peer->context);
    for (i = 0; i < TAIL_LINES; i++) free(peer->tail[i]);
    if (!peer->is_guest)
        for (i = 0; peer->args != NULL && peer->args[i] != NULL; i++) free(peer->args[i]);
    free(peer->args);
    free(peer->versions);
    free(peer->threads);
    free(peer->calls.at);
    free(peer->open.at);
    free(peer->ours.at);
    free(peer->theirs_streams.at);
    free(peer->config);
    free(peer->name);
    free(peer->path);
    free(peer->rbuf);
    reader_free(&peer->reader);
    pthread_mutex_destroy(&peer->mu);
    pthread_mutex_destroy(&peer->out_mu);
    pthread_cond_destroy(&peer->watch_cond);
    pthread_cond_destroy(&peer->work_cond);
    pthread_cond_destroy(&peer->credit_cond);
    pthread_cond_destroy(&peer->state_cond);
    pthread_cond_destroy(&peer->cancel_cond);
    pthread_cond_destroy(&peer->out_cond);
    pthread_cond_destroy(&peer->room_cond);
    free(peer);
}

ppg_status ppg_on(ppg_peer *peer, const char *name, ppg_handler handler, void *user) {
    struct command *command, **at;
    if (peer == NULL || handler == NULL || peer->is_started) return PPG_EINVAL;
    if (name != NULL && strncmp(name, "cmd.", 4) == 0) return PPG_ERESERVED;
    command = calloc(1, sizeof *command);
    if (command == NULL || (name != NULL && (command->name = copy_of(name)) == NULL)) {
        free(command);
        return PPG_ENOMEM;
    }
    command->handler = handler;
    command->user = user;
    for (at = &peer->commands; *at != NULL; at = &(*at)->next) continue;
    *at = command;
    return PPG_OK;
}

ppg_status ppg_set_metadata(ppg_peer *peer, const char *key, const char *value) {
    if (peer == NULL || key == NULL || value == NULL || peer->is_started || strncmp(key, "pipeplug.", 9) == 0)
        return PPG_EINVAL;
    return entry_set(&peer->metadata, key, value) ? PPG_OK : PPG_ENOMEM;
}

ppg_status ppg_set_threads(ppg_peer *peer, unsigned threads) {
    if (peer == NULL || threads == 0 || peer->is_started) return PPG_EINVAL;
    peer->max_running = threads;
    return PPG_OK;
}

ppg_status ppg_set_limits(ppg_peer *peer, size_t command, size_t buffer) {
    if (peer == NULL || peer->is_started) return PPG_EINVAL;
    if (command > 0) peer->command_limit = command;
    if (buffer > 0) peer->buffer_limit = buffer;
    return PPG_OK;
}

ppg_status ppg_set_windows(ppg_peer *peer, uint64_t window, uint64_t stream_window) {
    if (peer == NULL || peer->is_started) return PPG_EINVAL;
    if (window > 0) peer->window = window;
    if (stream_window > 0) peer->stream_window = stream_window;
    return PPG_OK;
}

ppg_status ppg_set_interface_versions(ppg_peer *peer, const uint32_t *versions, size_t count) {
    uint32_t *copy;
    if (peer == NULL || peer->is_started || (count > 0 && versions == NULL)) return PPG_EINVAL;
    copy = malloc((count + 1) * sizeof *copy);
    if (copy == NULL) return PPG_ENOMEM;
    if (count > 0) memcpy(copy, versions, count * sizeof *copy);
    free(peer->versions);
    peer->versions = copy;
    peer->version_count = count;
    return PPG_OK;
}

ppg_status ppg_add_service(ppg_peer *peer, const char *name, uint32_t version, uint32_t oldest, const char *description) {
    char word[160];
    int n;
    if (peer == NULL || name == NULL || description == NULL || peer->is_started || oldest > version) return PPG_EINVAL;
    if (!ppg_json_is_object(description, strlen(description))) return PPG_EINVAL;
    if (oldest == version)
        n = snprintf(word, sizeof word, "%s/%lu", name, (unsigned long)version);
    else
        n = snprintf(word, sizeof word, "%s/%lu-%lu", name, (unsigned long)oldest, (unsigned long)version);
    if (n < 0 || (size_t)n >= sizeof word) return PPG_EINVAL;
    return entry_set(&peer->services, word, description) ? PPG_OK : PPG_ENOMEM;
}

ppg_status ppg_on_warning(ppg_peer *peer, void (*to)(const char *, void *), void *user) {
    if (peer == NULL || peer->is_started) return PPG_EINVAL;
    peer->warn = to;
    peer->warn_user = user;
    return PPG_OK;
}

const char *ppg_metadata(ppg_peer *peer, const char *key) {
    const char *value;
    if (peer == NULL) return NULL;
    pthread_mutex_lock(&peer->mu);
    value = entry_get(peer->theirs, key);
    /* It may hold secrets, and is not for everyone who looks at metadata. */
    if (strcmp(key, "pipeplug.config") == 0) value = NULL;
    pthread_mutex_unlock(&peer->mu);
    return value;
}

int ppg_has(ppg_peer *peer, const char *feature) {
    int i, has = 0;
    if (peer == NULL || feature == NULL) return 0;
    pthread_mutex_lock(&peer->mu);
    for (i = 0; i < FEATURES; i++)
        if (strcmp(feature, FEATURE_NAMES[i]) == 0) has = peer->features[i];
    pthread_mutex_unlock(&peer->mu);
    return has;
}

uint32_t ppg_interface_version(ppg_peer *peer) {
    uint32_t version;
    if (peer == NULL) return 0;
    pthread_mutex_lock(&peer->mu);
    version = peer->interface_version;
    pthread_mutex_unlock(&peer->mu);
    return version;
}

/* ==== Descriptors ==== */

static int set_flag(int fd, int get, int set, int flag) {
    int flags = fcntl(fd, get);
    return flags >= 0 && ((flags & flag) != 0 || fcntl(fd, set, flags | flag) == 0);
}

static int is_socket(int fd) {
    struct stat info;
    return fstat(fd, &info) == 0 && S_ISSOCK(info.st_mode);
}

/* Takes the descriptors, and makes what waking needs. `is_own` tells that nothing else uses their descriptions. */
static int peer_connect(ppg_peer *peer, int rfd, int wfd, int is_own) {
    int wake[2];
    struct sigaction action;
    peer->rfd = rfd;
    peer->wfd = wfd;
    peer->read_socket = is_socket(rfd);
    peer->write_socket = is_socket(wfd);
    if (!is_own) {
        /* A description of our own, so that others who have the pipe do not find it non-blocking. */
        char path[64];
        int fd;
        if (!peer->read_socket) {
            snprintf(path, sizeof path, "/proc/self/fd/%d", rfd);
            fd = open(path, O_RDONLY | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0) {
                close(rfd);
                peer->rfd = fd;
            } else if (!set_flag(rfd, F_GETFL, F_SETFL, O_NONBLOCK)) {
                return 0;
            }
        }
        if (!peer->write_socket) {
            snprintf(path, sizeof path, "/proc/self/fd/%d", wfd);
            fd = open(path, O_WRONLY | O_NONBLOCK | O_CLOEXEC);
            if (fd >= 0) {
                close(wfd);
                peer->wfd = fd;
            } else {
                peer->write_shared = 1;
            }
        }
    } else {
        if (!peer->read_socket && !set_flag(rfd, F_GETFL, F_SETFL, O_NONBLOCK)) return 0;
        if (!peer->write_socket && !set_flag(wfd, F_GETFL, F_SETFL, O_NONBLOCK)) return 0;
    }
    set_flag(peer->rfd, F_GETFD, F_SETFD, FD_CLOEXEC);
    set_flag(peer->wfd, F_GETFD, F_SETFD, FD_CLOEXEC);
#ifdef F_SETPIPE_SZ
    /* Fewer changes between the processes for large chunks; refused where the user has too many large pipes. */
    if (!peer->write_socket) (void)fcntl(peer->wfd, F_SETPIPE_SZ, PIPE_SIZE);
#endif
    peer->pipe_size = 65536;
#ifdef F_GETPIPE_SZ
    if (!peer->write_socket) {
        int size = fcntl(peer->wfd, F_GETPIPE_SZ);
        if (size > 0) peer->pipe_size = (size_t)size;
    }
#endif
    if (pipe(wake) != 0) return 0;
    peer->wake_read = wake[0];
    peer->wake_write = wake[1];
    set_flag(wake[0], F_GETFD, F_SETFD, FD_CLOEXEC);
    set_flag(wake[1], F_GETFD, F_SETFD, FD_CLOEXEC);
    set_flag(wake[0], F_GETFL, F_SETFL, O_NONBLOCK);
    set_flag(wake[1], F_GETFL, F_SETFL, O_NONBLOCK);
    if (sysconf(_SC_NPROCESSORS_ONLN) < 2) peer->spin_skips = UINT_MAX;
    peer->quiet = sigaction(SIGPIPE, NULL, &action) == 0 && action.sa_handler != SIG_DFL;
    return reader_init(&peer->reader,
                       peer->is_guest       ? FORMAT_UNKNOWN
                       : peer->use_classic  ? FORMAT_CLASSIC
                                            : FORMAT_STANDARD,
                       peer->command_limit, peer->buffer_limit);
}

/* ==== Guest ==== */

ppg_peer *ppg_guest_new(const char *name) { return peer_new(name == NULL ? "" : name, 1); }

ppg_status ppg_guest_on_start(ppg_peer *guest, int (*start)(ppg_peer *, void *), void *user) {
    if (guest == NULL || !guest->is_guest || guest->is_started) return PPG_EINVAL;
    guest->on_start = start;
    guest->on_start_user = user;
    return PPG_OK;
}

ppg_status ppg_guest_on_stop(ppg_peer *guest, void (*stop)(ppg_peer *, int, void *), void *user) {
    if (guest == NULL || !guest->is_guest || guest->is_started) return PPG_EINVAL;
    guest->on_stop = stop;
    guest->on_stop_user = user;
    return PPG_OK;
}

ppg_status ppg_guest_set_grace(ppg_peer *guest, unsigned milliseconds) {
    if (guest == NULL || !guest->is_guest || guest->is_started || milliseconds > INT_MAX) return PPG_EINVAL;
    guest->grace_ms = milliseconds;
    return PPG_OK;
}

char **ppg_guest_args(ppg_peer *guest) { return guest->args; }

const char *ppg_guest_config(ppg_peer *guest) {
    const char *config;
    pthread_mutex_lock(&guest->mu);
    config = entry_get(guest->theirs, "pipeplug.config");
    pthread_mutex_unlock(&guest->mu);
    return config;
}

ppg_log_level ppg_guest_log_level(ppg_peer *guest) {
    ppg_log_level level;
    pthread_mutex_lock(&guest->mu);
    level = guest->log_level;
    pthread_mutex_unlock(&guest->mu);
    return level;
}

void ppg_log(ppg_peer *guest, ppg_log_level level, const char *message) {
    static const char *const levels[] = {"OFF", "ERROR", "WARN", "INFO", "DEBUG", "TRACE"};
    struct text line = {NULL, 0, 0, 0};
    if (level <= PPG_LOG_OFF || level > PPG_LOG_TRACE || level > ppg_guest_log_level(guest)) return;
    text_str(&line, "{\"level\":\"");
    text_str(&line, levels[level]);
    text_str(&line, "\",\"msg\":");
    text_quote(&line, message, utf8_prefix(message, strlen(message)));
    text_str(&line, "}\n");
    if (!line.failed && write(STDERR_FILENO, line.at, line.len) < 0) errno = 0; /* it has no reader */
    free(line.at);
}

/* Ends the guest before it has served. */
static void guest_abort(ppg_peer *peer, int code) {
    pthread_mutex_lock(&peer->mu);
    peer->exit_code = code;
    peer_closed(peer, PPG_ECLOSED, "the plugin does not start");
    pthread_mutex_unlock(&peer->mu);
}

/* Runs the start call-back, once. Returns 0 if it failed, which ends the guest. */
static int guest_start(ppg_peer *peer) {
    int runs;
    pthread_mutex_lock(&peer->mu);
    runs = peer->on_start != NULL && !peer->did_start;
    peer->did_start = 1;
    pthread_mutex_unlock(&peer->mu);
    if (runs && peer->on_start(peer, peer->on_start_user) != 0) {
        guest_abort(peer, 1);
        return 0;
    }
    pthread_mutex_lock(&peer->mu);
    peer->hold = 0;
    pthread_cond_broadcast(&peer->work_cond);
    pthread_cond_broadcast(&peer->watch_cond);
    pthread_mutex_unlock(&peer->mu);
    return 1;
}

/* Answers GetMetadata; the first one when the guest has initialised itself. */
static void handle_metadata(ppg_request *request, void *user) {
    ppg_peer *peer = request->peer;
    struct text text = {NULL, 0, 0, 0};
    int is_first, is_common = 1;
    const char *level;
    (void)user;
    pthread_mutex_lock(&peer->mu);
    is_first = !peer->is_agreed;
    if (is_first) {
        level = entry_get(peer->theirs, "pipeplug.log_level");
        if (level != NULL) set_log_level(peer, level);
        is_common = choose_version(peer);
    }
    pthread_mutex_unlock(&peer->mu);
    if (is_first && is_common && !guest_start(peer)) {
        /* Without an answer: a guest that does not start has none. */
        request->is_kept = 1;
        answer_end(request, PPG_OK);
        return;
    }
    own_metadata(peer, &text);
    if (text.failed) {
        ppg_fail(request, NULL, "no memory", NULL);
    } else {
        pthread_mutex_lock(&peer->mu);
        peer->is_agreed = 1;
        peer->hold = 0;
        pthread_mutex_unlock(&peer->mu);
        ppg_answer(request, text.at, text.len);
        pthread_mutex_lock(&peer->mu);
        pthread_cond_broadcast(&peer->work_cond);
        pthread_cond_broadcast(&peer->watch_cond);
        pthread_mutex_unlock(&peer->mu);
    }
    free(text.at);
    if (!is_common) {
        warn(peer, "this plugin and its host have no version of their interface in common; upgrade the older one");
        wait_written(peer, in_ms((int)peer->grace_ms));
        guest_abort(peer, 1);
    }
}

/* Reads a descriptor of the command line. */
static int descriptor(const char *arg) {
    uint64_t number;
    size_t len = strlen(arg), i;
    int fd = 0;
    for (i = 0; i < len; i++)
        if (!is_digit(arg[i])) return -1;
    while (len > 1 && *arg == '0') arg++, len--;
    if (!parse_number(arg, len, &number) || number > INT_MAX) return -1;
    fd = (int)number;
    return fd;
}

/* Checks a descriptor that the host has named. */
static int check_descriptor(ppg_peer *peer, int fd, int is_read) {
    struct stat info;
    int flags = fcntl(fd, F_GETFL);
    if (flags < 0 || fstat(fd, &info) != 0) {
        warn(peer, "descriptor %d, to %s, is not open: a host has to start this plugin", fd, is_read ? "read from" : "write to");
        return 0;
    }
    if ((flags & O_ACCMODE) == (is_read ? O_WRONLY : O_RDONLY) || fd == STDERR_FILENO) {
        warn(peer, "descriptor %d cannot be %s", fd, is_read ? "read from" : "written to");
        return 0;
    }
    if (!S_ISFIFO(info.st_mode) && !S_ISSOCK(info.st_mode)) {
        warn(peer, "descriptor %d is neither a pipe nor a socket: a host has to start this plugin", fd);
        return 0;
    }
    return 1;
}

/* Moves a standard descriptor away, so that nothing else reads or prints there. */
static int move_away(int fd) {
    int copy, put;
    if (fd != STDIN_FILENO && fd != STDOUT_FILENO) return fd;
    copy = fcntl(fd, F_DUPFD_CLOEXEC, 3);
    if (copy < 0) return -1;
    put = fd == STDIN_FILENO ? -1 : fcntl(STDERR_FILENO, F_DUPFD_CLOEXEC, 3);
    if (put < 0) put = open("/dev/null", (fd == STDIN_FILENO ? O_RDONLY : O_WRONLY) | O_CLOEXEC);
    if (put < 0 || dup2(put, fd) < 0) return -1;
    close(put);
    return copy;
}

static int same_user(int fd) {
#ifdef SO_PEERCRED
    struct ucred who;
    socklen_t len = sizeof who;
    return getsockopt(fd, SOL_SOCKET, SO_PEERCRED, &who, &len) == 0 && who.uid == geteuid();
#else
    uid_t uid;
    gid_t gid;
    return getpeereid(fd, &uid, &gid) == 0 && uid == geteuid();
#endif
}

/* Waits for a host at a socket. Returns the connection, or -1 after it has said why not. */
static int listen_at(ppg_peer *peer, const char *path) {
    struct sockaddr_un address;
    struct stat info;
    mode_t before;
    int fd, host, bound;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(path) >= sizeof address.sun_path) {
        warn(peer, "cannot listen at %.200s: the path is longer than %d bytes", path, (int)sizeof address.sun_path - 1);
        return -1;
    }
    strcpy(address.sun_path, path);
    fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (fd < 0) {
        warn(peer, "cannot make a socket: %s", strerror(errno));
        return -1;
    }
    set_flag(fd, F_GETFD, F_SETFD, FD_CLOEXEC);
    /* What a process has left that has ended: a connect finds no listener. */
    if (lstat(path, &info) == 0 && S_ISSOCK(info.st_mode)) {
        int probe = socket(AF_UNIX, SOCK_DGRAM, 0);
        if (probe >= 0 && connect(probe, (struct sockaddr *)&address, sizeof address) < 0 && errno == ECONNREFUSED)
            unlink(path);
        if (probe >= 0) close(probe);
    }
    before = umask(0177);
    bound = bind(fd, (struct sockaddr *)&address, sizeof address);
    umask(before);
    if (bound != 0 || listen(fd, 1) != 0) {
        warn(peer, "cannot listen at %.200s: %s", path, strerror(errno));
        close(fd);
        return -1;
    }
    warn(peer, "waits for its host: pipeplug run --attach %.200s --call COMMAND [DATA]", path);
    for (;;) {
        host = accept(fd, NULL, NULL);
        if (host < 0 && errno == EINTR) continue;
        if (host < 0 || same_user(host)) break;
        warn(peer, "turned a host of another user away");
        close(host);
    }
    unlink(path);
    close(fd);
    if (host < 0) warn(peer, "cannot wait for a host: %s", strerror(errno));
    return host;
}

static int is_idle(const ppg_peer *peer) {
    return peer->open.count == 0 && peer->one_ways == 0 && peer->running == 0 && peer->queue == NULL;
}

static void by_hand(const ppg_peer *peer, const char *path) {
    fprintf(stderr, "%s is a plugin: a host starts it. To try it, type: pipeplug run %s%s\n", peer->name,
            strchr(path, '/') == NULL ? "./" : "", path);
}

/* Serves until the end. Returns the exit status. */
static int guest_serve(ppg_peer *peer, int told, const char *path) {
    int64_t until;
    int lost, finished;
    pthread_mutex_lock(&peer->mu);
    peer->is_started = 1;
    peer->lead_now = 1;
    if (!spawn_thread(peer)) {
        pthread_mutex_unlock(&peer->mu);
        warn(peer, "cannot make a thread");
        return 1;
    }
    while (!peer->is_stopping && !peer->is_closed) pthread_cond_wait(&peer->state_cond, &peer->mu);
    lost = !peer->is_stopping;
    until = in_ms((int)peer->grace_ms);
    pthread_mutex_unlock(&peer->mu);
    if (peer->on_stop != NULL) peer->on_stop(peer, lost, peer->on_stop_user);
    pthread_mutex_lock(&peer->mu);
    while (!(finished = is_idle(peer)) && now_ns() < until) cond_wait(&peer->state_cond, &peer->mu, until);
    lost = !peer->is_stopping;
    pthread_mutex_unlock(&peer->mu);
    wait_written(peer, until);
    if (lost && peer->exit_code == 0) {
        peer->exit_code = 1;
        if (peer->close_status == PPG_ECLOSED && !told && !peer->was_called) {
            by_hand(peer, path);
            peer->exit_code = 2;
        } else {
            warn(peer, "the host is gone: %s", peer->close_reason);
        }
    }
    if (!finished) {
        warn(peer, "ends with handlers still at work after %u ms", peer->grace_ms);
        fflush(stdout);
        _exit(peer->exit_code);
    }
    return peer->exit_code;
}

int ppg_guest_run(ppg_peer *peer, int argc, char **argv) {
    const char *path = argc > 0 && argv[0] != NULL ? argv[0] : "plugin", *listens = NULL;
    int rfd = STDIN_FILENO, wfd = STDOUT_FILENO, told = 0, skip = 1, code, i;
    struct stat info;
    if (peer == NULL) {
        fputs("no memory\n", stderr);
        return 1;
    }
    if (*peer->name == '\0') {
        const char *slash = strrchr(path, '/');
        char *name = copy_of(slash == NULL ? path : slash + 1);
        if (name != NULL) {
            free(peer->name);
            peer->name = name;
        }
    }
    signal(SIGPIPE, SIG_IGN);
    if (argc > 1 && strcmp(argv[1], "--pipeplug-listen") == 0) {
        skip = 3;
        listens = argc > 2 ? argv[2] : "";
    } else if (argc > 2 && descriptor(argv[1]) >= 0 && descriptor(argv[2]) >= 0) {
        told = 1;
        skip = 3;
        rfd = descriptor(argv[1]);
        wfd = descriptor(argv[2]);
    }
    peer->args = calloc((size_t)argc + 1, sizeof *peer->args);
    for (i = skip; peer->args != NULL && i < argc; i++) peer->args[i - skip] = argv[i];
    code = 2;
    if (listens != NULL && *listens == '\0') {
        warn(peer, "--pipeplug-listen needs the path of a socket");
    } else if (listens != NULL) {
        rfd = wfd = listen_at(peer, listens);
        told = 1;
    } else if (!told && (fstat(rfd, &info) != 0 || S_ISCHR(info.st_mode))) {
        by_hand(peer, path);
        rfd = -1;
    } else if (told && (!check_descriptor(peer, rfd, 1) || !check_descriptor(peer, wfd, 0))) {
        rfd = -1;
    } else {
        int own = rfd > 2 && wfd > 2, r = move_away(rfd), w = move_away(wfd);
        if (r < 0 || w < 0) {
            warn(peer, "cannot take stdin and stdout: %s", strerror(errno));
            rfd = -1;
        } else {
            rfd = r;
            wfd = w;
            if (!own) told |= 2;
        }
    }
    if (rfd >= 0 && !(listens != NULL && *listens == '\0')) {
        if (peer->args == NULL || !peer_connect(peer, rfd, wfd, !(told & 2)))
            warn(peer, "cannot use the connection: %s", strerror(errno));
        else
            code = guest_serve(peer, told & 1, path);
    }
    peer_free(peer);
    return code;
}

/* ==== Host ==== */

ppg_peer *ppg_plugin_new(const char *path) {
    const char *slash;
    ppg_peer *peer;
    if (path == NULL) return NULL;
    slash = strrchr(path, '/');
    peer = peer_new(slash == NULL ? path : slash + 1, 0);
    if (peer != NULL && (peer->path = copy_of(path)) == NULL) {
        ppg_free(peer);
        return NULL;
    }
    return peer;
}

static int is_new_plugin(const ppg_peer *peer) { return peer != NULL && !peer->is_guest && !peer->is_started; }

ppg_status ppg_plugin_arg(ppg_peer *plugin, const char *arg) {
    size_t count = 0;
    char **args;
    if (!is_new_plugin(plugin) || arg == NULL) return PPG_EINVAL;
    while (plugin->args != NULL && plugin->args[count] != NULL) count++;
    args = realloc(plugin->args, (count + 2) * sizeof *args);
    if (args == NULL) return PPG_ENOMEM;
    plugin->args = args;
    args[count] = copy_of(arg);
    if (args[count] == NULL) return PPG_ENOMEM;
    args[count + 1] = NULL;
    return PPG_OK;
}

ppg_status ppg_plugin_env(ppg_peer *plugin, const char *name, const char *value) {
    if (!is_new_plugin(plugin) || name == NULL || value == NULL || *name == '\0' || strchr(name, '=') != NULL)
        return PPG_EINVAL;
    return entry_set(&plugin->env, name, value) ? PPG_OK : PPG_ENOMEM;
}

ppg_status ppg_plugin_use_stdio(ppg_peer *plugin) {
    if (!is_new_plugin(plugin)) return PPG_EINVAL;
    plugin->use_stdio = 1;
    return PPG_OK;
}

ppg_status ppg_plugin_use_classic(ppg_peer *plugin) {
    if (!is_new_plugin(plugin)) return PPG_EINVAL;
    plugin->use_classic = 1;
    return PPG_OK;
}

ppg_status ppg_plugin_attach(ppg_peer *plugin) {
    if (!is_new_plugin(plugin)) return PPG_EINVAL;
    plugin->attach = 1;
    return PPG_OK;
}

ppg_status ppg_plugin_config(ppg_peer *plugin, const char *json) {
    char *copy;
    if (!is_new_plugin(plugin) || json == NULL || !json_is_valid(json, strlen(json))) return PPG_EINVAL;
    if (strlen(json) > CONFIG_MAX) return PPG_ELIMIT;
    copy = copy_of(json);
    if (copy == NULL) return PPG_ENOMEM;
    free(plugin->config);
    plugin->config = copy;
    return PPG_OK;
}

ppg_status ppg_plugin_log_level(ppg_peer *plugin, ppg_log_level level) {
    static const char *const levels[] = {"off", "error", "warn", "info", "debug", "trace"};
    if (plugin == NULL || plugin->is_guest || level > PPG_LOG_TRACE) return PPG_EINVAL;
    pthread_mutex_lock(&plugin->mu);
    plugin->log_level = level;
    plugin->has_log_level = 1;
    if (plugin->is_agreed && plugin->features[F_LOG] && !plugin->is_closed)
        send_own(plugin, 0, DIR_ONE_WAY, "cmd.log_level", levels[level]);
    pthread_mutex_unlock(&plugin->mu);
    return PPG_OK;
}

ppg_status ppg_plugin_on_line(ppg_peer *plugin, void (*line)(const char *, void *), void *user) {
    if (!is_new_plugin(plugin)) return PPG_EINVAL;
    plugin->on_line = line;
    plugin->on_line_user = user;
    return PPG_OK;
}

ppg_status ppg_plugin_set_start_timeout(ppg_peer *plugin, unsigned milliseconds) {
    if (!is_new_plugin(plugin) || milliseconds > INT_MAX) return PPG_EINVAL;
    plugin->start_timeout_ms = milliseconds;
    return PPG_OK;
}

/* A line of the plugin's stderr. */
static void take_line(ppg_peer *peer, char *line, size_t len) {
    char *copy;
    while (len > 0 && line[len - 1] == '\r') len--;
    copy = malloc(len + 1);
    if (copy == NULL) return;
    memcpy(copy, line, len);
    copy[len] = '\0';
    if (peer->on_line != NULL) {
        peer->on_line(copy, peer->on_line_user);
    } else {
        line[len] = '\n';
        if (write(STDERR_FILENO, line, len + 1) < 0) errno = 0; /* it has no reader */
    }
    pthread_mutex_lock(&peer->mu);
    free(peer->tail[peer->tail_count % TAIL_LINES]);
    peer->tail[peer->tail_count++ % TAIL_LINES] = copy;
    pthread_mutex_unlock(&peer->mu);
}

static void *err_thread(void *of) {
    ppg_peer *peer = of;
    char line[16385];
    size_t len = 0;
    for (;;) {
        struct pollfd fd = {0, POLLIN, 0};
        ssize_t n;
        char *end;
        fd.fd = peer->err_fd;
        /* Something that the plugin has started may keep it open for ever. */
        if (poll(&fd, 1, 50) == 0) {
            int ends;
            pthread_mutex_lock(&peer->mu);
            ends = peer->err_ends;
            peer->err_quiet++;
            pthread_mutex_unlock(&peer->mu);
            if (ends) break;
            continue;
        }
        n = read(peer->err_fd, line + len, sizeof line - 1 - len);
        if (n < 0 && errno == EINTR) continue;
        if (n <= 0) break;
        len += (size_t)n;
        while ((end = memchr(line, '\n', len)) != NULL) {
            size_t rest = len - (size_t)(end - line) - 1;
            take_line(peer, line, (size_t)(end - line));
            memmove(line, end + 1, rest);
            len = rest;
        }
        if (len == sizeof line - 1) {
            take_line(peer, line, len);
            len = 0;
        }
    }
    if (len > 0) take_line(peer, line, len);
    pthread_mutex_lock(&peer->mu);
    peer->err_done = 1;
    pthread_mutex_unlock(&peer->mu);
    return NULL;
}

/* Environment of the plugin: what goes through, and what was set. */
static char **make_env(const ppg_peer *peer) {
    static const char *const names[] = {"PATH", "HOME", "LANG", "TERM", "TMPDIR", "TZ"};
    size_t count = 0, n = 0, i;
    const struct entry *it;
    char **env;
    for (i = 0; environ != NULL && environ[i] != NULL; i++) count++;
    for (it = peer->env; it != NULL; it = it->next) count++;
    env = calloc(count + 1, sizeof *env);
    if (env == NULL) return NULL;
    for (i = 0; environ != NULL && environ[i] != NULL; i++) {
        size_t len = strcspn(environ[i], "="), k;
        int passes = strncmp(environ[i], "LC_", 3) == 0;
        for (k = 0; k < sizeof names / sizeof *names; k++)
            passes |= strlen(names[k]) == len && strncmp(environ[i], names[k], len) == 0;
        for (it = peer->env; it != NULL; it = it->next)
            if (strlen(it->key) == len && strncmp(it->key, environ[i], len) == 0) passes = 0;
        if (passes && (env[n++] = copy_of(environ[i])) == NULL) goto no_memory;
    }
    for (it = peer->env; it != NULL; it = it->next) {
        size_t size = strlen(it->key) + strlen(it->value) + 2;
        if ((env[n++] = malloc(size)) == NULL) goto no_memory;
        snprintf(env[n - 1], size, "%s=%s", it->key, it->value);
    }
    return env;
no_memory:
    while (n > 0) free(env[--n]);
    free(env);
    return NULL;
}

/* A pipe whose ends are out of the way of the descriptors 0 to 4, and are not inherited. */
static int high_pipe(int fds[2]) {
    int low[2], i;
#ifdef __linux__
    if (pipe2(low, O_CLOEXEC) != 0) return 0;
#else
    if (pipe(low) != 0) return 0;
#endif
    for (i = 0; i < 2; i++) {
        fds[i] = fcntl(low[i], F_DUPFD_CLOEXEC, 10);
        close(low[i]);
    }
    if (fds[0] >= 0 && fds[1] >= 0) return 1;
    close_fd(&fds[0]);
    close_fd(&fds[1]);
    return 0;
}

/* Head of a program's file. */
struct program {
    unsigned char head[4096];
    size_t len;
    char interpreter[1024]; /* of its `#!` line, or its dynamic loader; empty for none */
};

static uint64_t little(const unsigned char *at, int bytes) {
    uint64_t number = 0;
    while (bytes-- > 0) number = number << 8 | at[bytes];
    return number;
}

/* Reads the file, and finds its interpreter. Returns 0 if it cannot be read. */
static int program_read(struct program *it, const char *path) {
    int fd = open(path, O_RDONLY | O_CLOEXEC | O_NONBLOCK), wide;
    const unsigned char *head = it->head;
    ssize_t n;
    it->interpreter[0] = '\0';
    it->len = 0;
    if (fd < 0) return 0;
    n = read(fd, it->head, sizeof it->head);
    close(fd);
    if (n < 0) return 0;
    it->len = (size_t)n;
    if (n > 2 && memcmp(head, "#!", 2) == 0) {
        size_t from = 2, to;
        while (from < it->len && (head[from] == ' ' || head[from] == '\t')) from++;
        for (to = from; to < it->len && strchr(" \t\n", head[to]) == NULL; to++) continue;
        if (to - from >= sizeof it->interpreter) return 1;
        memcpy(it->interpreter, head + from, to - from);
        it->interpreter[to - from] = '\0';
    } else if (n >= 64 && memcmp(head, "\177ELF", 4) == 0 && head[5] == 1) {
        uint64_t at, size, count, i;
        wide = head[4] == 2;
        at = little(head + (wide ? 32 : 28), wide ? 8 : 4);
        size = little(head + (wide ? 54 : 42), 2);
        count = little(head + (wide ? 56 : 44), 2);
        for (i = 0; i < count && size >= 32 && at <= it->len && size <= it->len - at; i++, at += size) {
            uint64_t from = little(head + at + (wide ? 8 : 4), wide ? 8 : 4);
            uint64_t len = little(head + at + (wide ? 32 : 16), wide ? 8 : 4);
            if (little(head + at, 4) != 3 || from > it->len || len > it->len - from || len > sizeof it->interpreter) continue;
            memcpy(it->interpreter, head + from, (size_t)len);
            it->interpreter[len > 0 ? len - 1 : 0] = '\0';
        }
    }
    return 1;
}

static void add_machine(ppg_error *error, const struct program *it) {
    static const struct {
        unsigned number;
        const char *name;
    } names[] = {{3, "x86"}, {20, "powerpc"}, {21, "powerpc64"}, {22, "s390"}, {40, "arm"}, {62, "x86_64"}, {183, "aarch64"}, {243, "riscv"}};
    unsigned number = it->head[5] == 2 ? it->head[18] * 256U + it->head[19] : it->head[19] * 256U + it->head[18];
    const char *name = NULL;
    size_t i;
    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == number) name = names[i].name;
    if (name != NULL)
        more(error, "%s", name);
    else
        more(error, "machine %u", number);
    more(error, ", %d bits, %s-endian", it->head[4] == 2 ? 64 : 32, it->head[5] == 2 ? "big" : "little");
}

/* The kernel takes the file for no program. */
static void not_a_program(const char *path, ppg_error *error) {
    struct program it, own;
    const char *what = "it has neither a `#!` line nor an ELF header";
    if (!program_read(&it, path)) {
        more(error, "cannot be executed, nor read: %s", strerror(errno));
        return;
    }
    if (it.len >= 20 && memcmp(it.head, "\177ELF", 4) == 0) {
        if (program_read(&own, "/proc/self/exe") && own.len >= 20 && (memcmp(it.head + 4, own.head + 4, 2) != 0 || memcmp(it.head + 18, own.head + 18, 2) != 0)) {
            more(error, "is built for another machine (");
            add_machine(error, &it);
            more(error, "), this one is ");
            add_machine(error, &own);
            more(error, ": build it for this one");
            return;
        }
        what = "its ELF header is damaged";
    } else if (it.len == 0) {
        what = "it is empty";
    } else if (it.len >= 2 && memcmp(it.head, "#!", 2) == 0) {
        what = it.interpreter[0] == '\0' ? "its `#!` line names no interpreter" : "the interpreter of its `#!` line is no program";
    } else if (it.len >= 3 && memcmp(it.head, "\357\273\277", 3) == 0) {
        what = "a byte order mark stands before its first line: save it without one";
    }
    more(error, "is not a program: %s; start a script with a line like `#!/bin/sh`", what);
}

/* A path leads through a file as if that were a directory. Returns 0 if it does not. */
static int through_a_file(const char *path, char *file, size_t size) {
    struct stat info;
    size_t len;
    for (len = strlen(path); len > 1; len--) {
        if (path[len - 1] != '/' || len > size) continue;
        memcpy(file, path, len - 1);
        file[len - 1] = '\0';
        if (stat(file, &info) == 0 && !S_ISDIR(info.st_mode)) return 1;
    }
    return 0;
}

/* Its interpreter, or that of its interpreter, and so on, which does not exist (mode F_OK), or is no file that may be
 * executed (X_OK). Returns 0 if there is none. */
static int wrong_interpreter(const char *path, int mode, struct program *it) {
    char at[sizeof it->interpreter];
    struct stat info;
    int depth;
    for (depth = 0; depth < 5; depth++) { /* as the kernel does */
        if (!program_read(it, depth == 0 ? path : at) || it->interpreter[0] == '\0') return 0;
        if (access(it->interpreter, mode) != 0) return 1;
        if (mode == X_OK && stat(it->interpreter, &info) == 0 && !S_ISREG(info.st_mode)) return 1;
        memcpy(at, it->interpreter, sizeof at);
    }
    return 0;
}

/* Tells whether the `#!` line of a script ends with a carriage return: that belongs to its last word for the kernel. */
static int ends_in_cr(const char *path) {
    struct program it;
    const unsigned char *end;
    if (!program_read(&it, path) || it.len < 3 || memcmp(it.head, "#!", 2) != 0) return 0;
    end = memchr(it.head, '\n', it.len);
    return end != NULL && end[-1] == '\r';
}

/* Says why a program was not executed, which the number of the error alone does not tell. */
static ppg_status why_not_executed(const char *path, int number, ppg_error *error) {
    struct stat info;
    struct program it;
    char whole[1024], other[1024], dir[512];
    ssize_t len;
    if (error == NULL) return PPG_ESTART;
    /* The whole path: what it is relative to may be another directory than the reader thinks. */
    while (strncmp(path, "./", 2) == 0) path += strspn(path + 1, "/") + 1;
    if (*path != '/' && getcwd(dir, sizeof dir) != NULL) {
        snprintf(whole, sizeof whole, "%s/%s", dir, path);
        path = whole;
    }
    if ((number == ENOENT || number == ENOTDIR) && through_a_file(path, other, sizeof other))
        return fail(error, PPG_ESTART, "no plugin at \"%.300s\": \"%.300s\" is not a directory; name the file itself, without a `/` behind it", path, other);
    if (number == ENOENT && stat(path, &info) != 0) {
        len = readlink(path, other, sizeof other - 1);
        other[len > 0 ? len : 0] = '\0';
        return fail(error, PPG_ESTART, "no plugin at \"%.300s\": no such file%s%.300s%s; check the path, PATH is not searched", path,
                    len > 0 ? ", it is a symbolic link to \"" : "", other, len > 0 ? "\"" : "");
    }
    fail(error, PPG_ESTART, "plugin \"%.300s\" ", path);
    if ((number == ENOENT || number == ENOTDIR) && wrong_interpreter(path, F_OK, &it)) {
        size_t end = strlen(it.interpreter);
        int is_crlf = end > 0 && it.interpreter[end - 1] == '\r';
        if (is_crlf) it.interpreter[end - 1] = '\0';
        more(error, "needs the interpreter \"%.300s%s\", which does not exist: %s", it.interpreter, is_crlf ? "\\r" : "",
             is_crlf ? "its first line ends in CR LF, convert the file to Unix line ends"
                     : "install it, or correct the plugin's `#!` line or build");
    } else if (number == EACCES && stat(path, &info) == 0 && S_ISDIR(info.st_mode)) {
        more(error, "is a directory: name the executable file inside it");
    } else if (number == EACCES && stat(path, &info) == 0 && !S_ISREG(info.st_mode)) {
        more(error, "is a FIFO, a socket or a device, which cannot be executed: name a file");
    } else if (number == EACCES && stat(path, &info) == 0 && access(path, X_OK) != 0 && (info.st_mode & 0111) != 0111) {
        more(error, "is not executable (mode %04o): run `chmod +x` on it", (unsigned)info.st_mode & 07777);
        if (info.st_uid != geteuid() && geteuid() != 0) more(error, " as its owner, or take a copy");
    } else if (number == EACCES && wrong_interpreter(path, X_OK, &it)) {
        more(error, "needs the interpreter \"%.300s\", which is no file that this user may execute: correct its mode, or the `#!` line",
             it.interpreter);
    } else if (number == EACCES) {
        more(error, "may not be executed (%s): check the directories above it, its interpreter, and whether its file system is "
                    "mounted noexec", strerror(number));
    } else if (number == ENOEXEC) {
        not_a_program(path, error);
    } else if (number == ETXTBSY) {
        more(error, "is open for writing: close the file, or wait for its copy to end, and start it again");
    } else if (number == EAGAIN) {
        more(error, "cannot be started: the limit of processes is reached (%s): end some, or raise it (`ulimit -u`)", strerror(number));
    } else if (number == E2BIG) {
        more(error, "cannot be given its arguments and environment: they are too long");
    } else {
        more(error, "cannot be started: %s", strerror(number));
    }
    return PPG_ESTART;
}

/* Starts the program. A file that was written a moment ago may be open for writing in a process that another thread of
 * this one has forked, until that one executes its program (ETXTBSY): waits for it, up to BUSY_MS. */
static int spawn_patiently(pid_t *pid, const char *path, const posix_spawn_file_actions_t *actions,
                           const posix_spawnattr_t *attr, char **argv, char **env) {
    int64_t until = in_ms(BUSY_MS);
    long pause = 1000000;
    for (;;) {
        int result = posix_spawn(pid, path, actions, attr, argv, env);
        if (result != ETXTBSY || now_ns() >= until) return result;
        pause_ns(pause);
        if (pause < 32000000) pause *= 2;
    }
}

/* What its descriptors become in the plugin. */
static int place_descriptors(const ppg_peer *peer, posix_spawn_file_actions_t *actions, int to, int from, int err) {
    int result;
    if (peer->use_stdio) {
        if ((result = posix_spawn_file_actions_adddup2(actions, to, 0)) != 0) return result;
        if ((result = posix_spawn_file_actions_adddup2(actions, from, 1)) != 0) return result;
    } else {
        if ((result = posix_spawn_file_actions_addopen(actions, 0, "/dev/null", O_RDONLY, 0)) != 0) return result;
        if ((result = posix_spawn_file_actions_adddup2(actions, err, 1)) != 0) return result;
        if ((result = posix_spawn_file_actions_adddup2(actions, to, 3)) != 0) return result;
        if ((result = posix_spawn_file_actions_adddup2(actions, from, 4)) != 0) return result;
    }
    return posix_spawn_file_actions_adddup2(actions, err, 2);
}

static ppg_status spawn_plugin(ppg_peer *peer, int *rfd, int *wfd, ppg_error *error) {
    int to[2] = {-1, -1}, from[2] = {-1, -1}, err[2] = {-1, -1}, result, tells;
    posix_spawn_file_actions_t actions;
    posix_spawnattr_t attr;
    sigset_t set;
    char **argv, **env;
    size_t count = 0, n = 0, i;
    ppg_status status = PPG_OK;
    while (peer->args != NULL && peer->args[count] != NULL) count++;
    argv = calloc(count + 4, sizeof *argv);
    env = make_env(peer);
    if (argv == NULL || env == NULL) {
        status = fail(error, PPG_ENOMEM, "plugin \"%.300s\" cannot be started: no memory", peer->path);
        goto out;
    }
    if (!high_pipe(to) || !high_pipe(from) || !high_pipe(err)) {
        status = fail(error, PPG_ESYSTEM, "plugin \"%.300s\" cannot be given its pipes: %s%s", peer->path, strerror(errno),
                      errno == EMFILE || errno == ENFILE ? "; run fewer plugins, or raise the limit (`ulimit -n`)" : "");
        goto out;
    }
    argv[n++] = peer->path;
    /* Arguments of its own that look like descriptors must not be taken for them. */
    tells = !peer->use_stdio || peer->use_classic ||
            (count >= 2 && descriptor(peer->args[0]) >= 0 && descriptor(peer->args[1]) >= 0);
    if (tells) {
        argv[n++] = (char *)(uintptr_t)(peer->use_stdio ? "0" : "3");
        argv[n++] = (char *)(uintptr_t)(peer->use_stdio ? "1" : "4");
    }
    for (i = 0; i < count; i++) argv[n++] = peer->args[i];
    posix_spawn_file_actions_init(&actions);
    posix_spawnattr_init(&attr);
    result = place_descriptors(peer, &actions, to[0], from[1], err[1]);
    sigemptyset(&set);
    posix_spawnattr_setsigmask(&attr, &set);
    sigfillset(&set);
    sigdelset(&set, SIGKILL);
    sigdelset(&set, SIGSTOP);
    posix_spawnattr_setsigdefault(&attr, &set);
    posix_spawnattr_setpgroup(&attr, 0);
    posix_spawnattr_setflags(&attr, POSIX_SPAWN_SETSIGMASK | POSIX_SPAWN_SETSIGDEF | POSIX_SPAWN_SETPGROUP);
    if (result == 0) result = spawn_patiently(&peer->pid, peer->path, &actions, &attr, argv, env);
    posix_spawn_file_actions_destroy(&actions);
    posix_spawnattr_destroy(&attr);
    if (result != 0) {
        peer->pid = 0;
        status = result == ENOMEM ? fail(error, PPG_ENOMEM, "plugin \"%.300s\" cannot be started: no memory", peer->path)
                                  : why_not_executed(peer->path, result, error);
        goto out;
    }
    *rfd = from[0];
    *wfd = to[1];
    peer->err_fd = err[0];
    from[0] = to[1] = err[0] = -1;
out:
    close_fd(&to[0]);
    close_fd(&to[1]);
    close_fd(&from[0]);
    close_fd(&from[1]);
    close_fd(&err[0]);
    close_fd(&err[1]);
    for (i = 0; env != NULL && env[i] != NULL; i++) free(env[i]);
    free(env);
    free(argv);
    return status;
}

static ppg_status attach_plugin(ppg_peer *peer, int *fd, ppg_error *error) {
    struct sockaddr_un address;
    memset(&address, 0, sizeof address);
    address.sun_family = AF_UNIX;
    if (strlen(peer->path) >= sizeof address.sun_path)
        return fail(error, PPG_EINVAL, "cannot attach to plugin at \"%.300s\": the path is longer than %d bytes", peer->path,
                    (int)sizeof address.sun_path - 1);
    strcpy(address.sun_path, peer->path);
    *fd = socket(AF_UNIX, SOCK_STREAM, 0);
    if (*fd >= 0) set_flag(*fd, F_GETFD, F_SETFD, FD_CLOEXEC);
    if (*fd < 0 || connect(*fd, (struct sockaddr *)&address, sizeof address) != 0) {
        ppg_status status = fail(error, PPG_ESTART, "cannot attach to plugin at \"%.300s\": %s%s", peer->path, strerror(errno),
                                 errno == ENOENT || errno == ECONNREFUSED
                                     ? "; start it with --pipeplug-listen and this path before"
                                     : "");
        close_fd(fd);
        return status;
    }
    return PPG_OK;
}

/* Waits for the process. Returns 1 once it has ended. */
static int reap(ppg_peer *peer, int64_t until) {
    long pause = 200000;
    for (;;) {
        int ended;
        pthread_mutex_lock(&peer->mu);
        if (!peer->is_reaped) {
            pid_t pid = waitpid(peer->pid, &peer->wait_status, WNOHANG);
            peer->knows_status = pid == peer->pid;
            /* ECHILD: the program has taken it, or ignores SIGCHLD. */
            peer->is_reaped = pid == peer->pid || (pid < 0 && errno == ECHILD);
        }
        ended = peer->is_reaped;
        pthread_mutex_unlock(&peer->mu);
        if (ended || now_ns() >= until) return ended;
        pause_ns(pause);
        if (pause < 10000000) pause *= 2;
    }
}

/* Under mu, so that the number cannot be that of another process by now. */
static void send_signal(ppg_peer *peer, int signal_number) {
    pthread_mutex_lock(&peer->mu);
    if (peer->pid > 0 && !peer->is_reaped) kill(-peer->pid, signal_number);
    pthread_mutex_unlock(&peer->mu);
}

/* Closes the writing end: the plugin finds the end of its input. */
static void close_writing(ppg_peer *peer) {
    pthread_mutex_lock(&peer->out_mu);
    out_fail(peer);
    if (peer->write_socket) {
        shutdown(peer->wfd, SHUT_WR);
    } else if (peer->wfd >= 0 && !peer->out_direct) {
        /* Threads may be about to use the number: it keeps one, which is no pipe. */
        int null = open("/dev/null", O_WRONLY | O_CLOEXEC);
        if (null >= 0) {
            dup2(null, peer->wfd);
            set_flag(peer->wfd, F_GETFD, F_SETFD, FD_CLOEXEC);
            close(null);
        }
    }
    pthread_mutex_unlock(&peer->out_mu);
}

static void stop_reading(ppg_peer *peer) {
    pthread_mutex_lock(&peer->mu);
    peer_closed(peer, PPG_ECLOSED, "the plugin was stopped");
    pthread_mutex_unlock(&peer->mu);
}

/* Takes the lines that it wrote before its end, and no more of what it has started. */
static void end_lines(ppg_peer *peer) {
    if (!peer->has_err_thread || pthread_equal(peer->err_thread, pthread_self())) return;
    pthread_mutex_lock(&peer->mu);
    peer->err_ends = 1;
    peer->has_err_thread = 0;
    pthread_mutex_unlock(&peer->mu);
    pthread_join(peer->err_thread, NULL);
}

/* How a process has ended, in words. */
static void add_status(ppg_error *error, int status) {
    static const struct {
        int number;
        const char *name;
    } names[] = {{SIGHUP, "SIGHUP"},   {SIGINT, "SIGINT"},   {SIGQUIT, "SIGQUIT"}, {SIGILL, "SIGILL"},   {SIGTRAP, "SIGTRAP"},
                 {SIGABRT, "SIGABRT"}, {SIGBUS, "SIGBUS"},   {SIGFPE, "SIGFPE"},   {SIGKILL, "SIGKILL"}, {SIGSEGV, "SIGSEGV"},
                 {SIGPIPE, "SIGPIPE"}, {SIGALRM, "SIGALRM"}, {SIGTERM, "SIGTERM"}, {SIGSYS, "SIGSYS"},   {SIGXCPU, "SIGXCPU"},
                 {SIGXFSZ, "SIGXFSZ"}, {SIGUSR1, "SIGUSR1"}, {SIGUSR2, "SIGUSR2"}};
    const char *name = "";
    size_t i;
    if (!WIFSIGNALED(status)) {
        more(error, "exit status %d", WEXITSTATUS(status));
        return;
    }
    for (i = 0; i < sizeof names / sizeof *names; i++)
        if (names[i].number == WTERMSIG(status)) name = names[i].name;
    more(error, "killed by signal %d%s%s%s", WTERMSIG(status), *name ? " (" : "", name, *name ? ")" : "");
}

/* The last lines of its stderr, as many as there is room for besides so many bytes. */
static void add_tail(ppg_peer *peer, ppg_error *error, size_t besides) {
    unsigned from, i;
    size_t room;
    if (error == NULL || peer->err_fd < 0) return;
    pthread_mutex_lock(&peer->mu);
    if (peer->tail_count == 0) {
        more(error, ", nothing on its stderr");
    } else {
        more(error, ", last on its stderr: ");
        room = sizeof error->message - strlen(error->message);
        room = room > besides ? room - besides : 1;
        for (from = peer->tail_count; from > 0 && peer->tail_count - from < TAIL_LINES; from--) {
            size_t len = strlen(peer->tail[(from - 1) % TAIL_LINES]) + 1;
            if (len > room) break;
            room -= len;
        }
        if (from == peer->tail_count) { /* the last one alone is too long */
            const char *line = peer->tail[(from - 1) % TAIL_LINES];
            more(error, "%.*s", (int)utf8_prefix(line, room - 1), line);
        }
        for (i = from; i < peer->tail_count; i++)
            more(error, "%s%s", i == from ? "" : "\n", peer->tail[i % TAIL_LINES]);
    }
    pthread_mutex_unlock(&peer->mu);
}

/* Waits for what comes a moment after the end of the connection: the end of the process, and its last lines. */
static void await_end(ppg_peer *peer) {
    int64_t until = in_ms(200);
    unsigned quiet;
    int waits;
    pthread_mutex_lock(&peer->mu);
    waits = !peer->end_awaited;
    peer->end_awaited = 1;
    pthread_mutex_unlock(&peer->mu);
    if (!reap(peer, waits ? in_ms(300) : 0)) return;
    pthread_mutex_lock(&peer->mu);
    waits = waits && peer->has_err_thread && !pthread_equal(peer->err_thread, pthread_self());
    quiet = peer->err_quiet;
    while (waits && !peer->err_done && peer->err_quiet == quiet && now_ns() < until) {
        pthread_mutex_unlock(&peer->mu);
        pause_ns(500000);
        pthread_mutex_lock(&peer->mu);
    }
    pthread_mutex_unlock(&peer->mu);
}

/* Adds to an error how the connection has ended: of a plugin also how its process has, and its last lines. */
static ppg_status add_end(ppg_peer *peer, ppg_error *error, ppg_status status) {
    int ended;
    if (error == NULL) return status;
    if (peer->pid > 0) await_end(peer);
    pthread_mutex_lock(&peer->mu);
    ended = peer->is_reaped && !(peer->was_stopped && peer->knows_status && peer->wait_status == 0);
    if (peer->is_guest) {
        more(error, "the host is gone: %s", peer->close_reason);
    } else {
        more(error, "plugin \"%.300s\" ", peer->path);
        if (peer->close_status == PPG_EBROKEN)
            more(error, "sent what is no chunk: %s%s", peer->close_reason, ended ? "; it " : "");
        else if (!ended)
            more(error, "%s%s", peer->was_stopped ? "was stopped" : "has closed the connection",
                 peer->pid > 0 && !peer->is_reaped ? ", and still runs" : "");
        if (ended) more(error, "has ended");
        if (ended && peer->knows_status) {
            more(error, ": ");
            add_status(error, peer->wait_status);
        }
    }
    pthread_mutex_unlock(&peer->mu);
    if (ended) add_tail(peer, error, 0);
    return status;
}

#define FORMAT_HINT \
    "if it speaks the classic format use ppg_plugin_use_classic, if it uses stdin and stdout ppg_plugin_use_stdio"

/* Ends what did not start, after so many milliseconds. Returns 1 if it had ended by itself. */
static int end_start(ppg_peer *peer, int ms) {
    int ended = peer->pid > 0 && reap(peer, in_ms(ms));
    if (peer->pid > 0 && !ended) {
        send_signal(peer, SIGKILL);
        reap(peer, NEVER);
    }
    stop_reading(peer);
    close_writing(peer);
    if (peer->is_reaped) end_lines(peer);
    return ended;
}

/* A plugin that was not to be used: the reason is there already. */
static ppg_status start_refused(ppg_peer *peer, ppg_status status, ppg_error *error) {
    end_start(peer, 0);
    if (peer->tail_count > 0) add_tail(peer, error, 0);
    return status;
}

/* Its first answer did not come. */
static ppg_status start_unanswered(ppg_peer *peer, ppg_status status, ppg_error *error) {
    const char *hint = "; it may be no plugin; " FORMAT_HINT;
    ppg_status closed;
    char reason[sizeof peer->close_reason];
    int ended;
    pthread_mutex_lock(&peer->mu);
    /* A write may find the end before a read does. */
    closed = peer->is_closed ? peer->close_status : status;
    memcpy(reason, peer->close_reason, sizeof reason);
    pthread_mutex_unlock(&peer->mu);
    ended = end_start(peer, closed == PPG_ECLOSED ? 500 : 0);
    if (status == PPG_ETIMEOUT) {
        fail(error, PPG_ESTART, "plugin \"%.300s\" did not answer within %u ms; a slow one needs more time: ppg_plugin_set_start_timeout; "
             FORMAT_HINT, peer->path, peer->start_timeout_ms);
        hint = "";
    } else if (closed == PPG_EBROKEN) {
        fail(error, PPG_ESTART, "plugin \"%.300s\" sent what is no chunk: %s", peer->path, reason);
        hint = "; " FORMAT_HINT ", and must print nothing there";
    } else if (closed == PPG_ECLOSED && ended) {
        fail(error, PPG_ESTART, "plugin \"%.300s\" ended before it answered", peer->path);
        if (peer->knows_status && error != NULL) {
            more(error, ": ");
            add_status(error, peer->wait_status);
        }
        if (WIFEXITED(peer->wait_status) && WEXITSTATUS(peer->wait_status) != 0 && !peer->attach && ends_in_cr(peer->path))
            hint = "; its `#!` line ends with a carriage return, which is taken for a part of its last word: save the file with "
                   "Unix line ends";
        else if (WIFEXITED(peer->wait_status) && WEXITSTATUS(peer->wait_status) == 127)
            hint = "; if a command was not found, install it, or set the PATH of the plugin (ppg_plugin_env)";
    } else if (closed == PPG_ECLOSED) {
        fail(error, PPG_ESTART, "plugin \"%.300s\" closed the connection before it answered%s", peer->path,
             peer->pid > 0 ? ", and ran on" : "");
    } else {
        fail(error, PPG_ESTART, "plugin \"%.300s\" did not start: %s", peer->path, *reason ? reason : ppg_status_text(status));
        hint = "";
    }
    if (peer->tail_count > 0 || *hint != '\0') add_tail(peer, error, strlen(hint));
    more(error, "%s", hint);
    return PPG_ESTART;
}

ppg_status ppg_plugin_start(ppg_peer *peer, ppg_error *error) {
    struct text json = {NULL, 0, 0, 0};
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_reply *reply = NULL;
    ppg_status status;
    int rfd = -1, wfd = -1, is_object;
    if (!is_new_plugin(peer)) return fail(error, PPG_EINVAL, "the plugin was started before");
    if (*peer->path == '\0') return fail(error, PPG_ESTART, "no plugin was started: its path is empty, name its file");
    if (peer->attach)
        status = attach_plugin(peer, &rfd, error), wfd = rfd;
    else
        status = spawn_plugin(peer, &rfd, &wfd, error);
    if (status != PPG_OK) return status;
    peer->is_started = 1;
    if (!peer_connect(peer, rfd, wfd, 1) ||
        (peer->err_fd >= 0 && (errno = pthread_create(&peer->err_thread, NULL, err_thread, peer)) != 0)) {
        fail(error, PPG_ESYSTEM, "cannot start plugin \"%.300s\": %s", peer->path, strerror(errno));
        return start_refused(peer, PPG_ESYSTEM, error);
    }
    pthread_mutex_lock(&peer->mu);
    peer->has_err_thread = peer->err_fd >= 0;
    peer->lead_now = 0;
    ensure_spare(peer);
    pthread_mutex_unlock(&peer->mu);
    own_metadata(peer, &json);
    options.timeout_ms = (int)peer->start_timeout_ms;
    if (json.failed)
        status = PPG_ENOMEM;
    else
        status = ppg_call(peer, "GetMetadata", json.at, json.len, &options, &reply, NULL);
    free(json.at);
    if (status != PPG_OK && status != PPG_EPEER) return start_unanswered(peer, status, error);
    pthread_mutex_lock(&peer->mu);
    is_object = status == PPG_EPEER ? 1 : read_theirs(peer, ppg_reply_text(reply), ppg_reply_len(reply));
    agree(peer);
    peer->is_agreed = 1;
    status = PPG_OK;
    if (is_object < 0)
        status = fail(error, PPG_ENOMEM, "plugin \"%.300s\" did not start: no memory for its metadata", peer->path);
    else if (!is_object)
        status = fail(error, PPG_ESTART, "plugin \"%.300s\" did not start: its metadata are no JSON object", peer->path);
    else if (peer->config != NULL && !peer->features[F_CONFIG])
        status = fail(error, PPG_ESTART, "plugin \"%.300s\" takes no configuration, and there is one for it", peer->path);
    else if (!choose_version(peer))
        status = fail(error, PPG_ESTART,
                      "plugin \"%.300s\" has no version of the interface in common with this host: it speaks %.100s",
                      peer->path, entry_get(peer->theirs, "pipeplug.interface_versions"));
    pthread_mutex_unlock(&peer->mu);
    ppg_reply_free(reply);
    return status != PPG_OK ? start_refused(peer, status, error) : fine(error);
}

ppg_status ppg_plugin_stop(ppg_peer *peer, int *exit_status, ppg_error *error) {
    int was_closed;
    if (exit_status != NULL) *exit_status = 0;
    if (peer == NULL || peer->is_guest || !peer->is_started) return fail(error, PPG_EINVAL, "the plugin was not started");
    pthread_mutex_lock(&peer->mu);
    was_closed = peer->is_closed;
    if (!was_closed && !peer->was_stopped) {
        peer->was_stopped = 1;
        send_own(peer, 0, DIR_ONE_WAY, "cmd.stop", "");
    }
    pthread_mutex_unlock(&peer->mu);
    if (peer->pid > 0) {
        if (!reap(peer, in_ms(was_closed ? 500 : 5000))) {
            close_writing(peer);
            if (!reap(peer, in_ms(1000))) {
                send_signal(peer, SIGTERM);
                if (!reap(peer, in_ms(2000))) {
                    send_signal(peer, SIGKILL);
                    reap(peer, NEVER);
                }
            }
        }
    } else if (!was_closed) {
        ppg_plugin_wait(peer, 5000);
    }
    /* What it wrote before its end is still read. */
    ppg_plugin_wait(peer, 100);
    stop_reading(peer);
    close_writing(peer);
    end_lines(peer);
    if (exit_status != NULL) *exit_status = peer->wait_status;
    if (!was_closed) return fine(error);
    fail(error, PPG_ECLOSED, "nothing to stop: ");
    return add_end(peer, error, PPG_ECLOSED);
}

ppg_status ppg_plugin_kill(ppg_peer *peer) {
    if (peer == NULL || peer->is_guest || peer->pid <= 0) return PPG_EINVAL;
    send_signal(peer, SIGKILL);
    return PPG_OK;
}

static int peer_is_closed(void *of) { return ((ppg_peer *)of)->is_closed; }

ppg_status ppg_plugin_wait(ppg_peer *peer, int timeout_ms) {
    int ended;
    if (peer == NULL || !peer->is_started) return PPG_EINVAL;
    pthread_mutex_lock(&peer->mu);
    ended = wait_until(peer, &peer->state_cond, peer_is_closed, peer, in_ms(timeout_ms));
    pthread_mutex_unlock(&peer->mu);
    return ended ? PPG_OK : PPG_ETIMEOUT;
}

long ppg_plugin_pid(ppg_peer *peer) {
    long pid;
    if (peer == NULL) return 0;
    pthread_mutex_lock(&peer->mu);
    pid = peer->is_reaped ? 0 : (long)peer->pid;
    pthread_mutex_unlock(&peer->mu);
    return pid;
}

void ppg_free(ppg_peer *peer) {
    if (peer == NULL) return;
    if (peer->is_started && !peer->is_guest) {
        if (peer->pid == 0 || !peer->is_reaped) ppg_plugin_stop(peer, NULL, NULL);
        stop_reading(peer);
    }
    end_lines(peer);
    peer_free(peer);
}
