/* The test vectors of the wire, and its text and JSON functions.
 *
 *     vectors FOLDER     crates/pipeplug-wire/tests/vectors
 */
#include "../pipeplug.c" /* its reader is not public */

static int checked, failed;

static void complain(const char *name, const char *format, ...) {
    va_list args;
    fprintf(stderr, "vectors: %s: ", name);
    va_start(args, format);
    vfprintf(stderr, format, args);
    va_end(args);
    fputc('\n', stderr);
    failed++;
}

static void check(int good, const char *what) {
    checked++;
    if (!good) complain(what, "wrong");
}

/* Items of an array, one after the other; *at is NULL before the first. Returns 0 behind the last one. */
static int next_item(const char *array, size_t len, const char **at, size_t *item_len) {
    const char *end = array + len, *from;
    from = *at == NULL ? json_space(array + 1, end) : json_space(*at + *item_len, end);
    if (*from == ',') from = json_space(from + 1, end);
    if (*from == ']') return 0;
    *at = from;
    *item_len = (size_t)(json_value(from, end, 0) - from);
    return 1;
}

/* Text of a member, in new memory; NULL if it has none. */
static char *member_text(const char *json, size_t len, const char *key) {
    const char *value;
    size_t value_len;
    if (!ppg_json_get(json, len, key, &value, &value_len)) return NULL;
    if (*value == '"') {
        struct text text = {NULL, 0, 0, 0}; /* a command may have a NUL: written as \0 */
        struct text shown = {NULL, 0, 0, 0};
        size_t i;
        text_add(&text, "", 0);
        text_add(&shown, "", 0);
        json_string(value, value + value_len, &text);
        for (i = 0; i < text.len; i++)
            if (text.at[i] == '\0')
                text_str(&shown, "\\0");
            else
                text_add(&shown, text.at + i, 1);
        free(text.at);
        return shown.at;
    } else {
        char *text = malloc(value_len + 1);
        memcpy(text, value, value_len);
        text[value_len] = '\0';
        return text;
    }
}

static uint64_t member_number(const char *json, size_t len, const char *key, uint64_t otherwise) {
    char *text = member_text(json, len, key);
    uint64_t number = text == NULL ? otherwise : strtoull(text, NULL, 10);
    free(text);
    return number;
}

/* Writes an event in one line. */
static void show_chunk(struct text *out, const chunk *it) {
    size_t i;
    char hex[3];
    text_str(out, "chunk ");
    text_number(out, it->id);
    text_str(out, " ");
    text_number(out, (uint64_t)it->direction);
    text_str(out, " ");
    for (i = 0; i < it->command_len; i++)
        if (it->command[i] == '\0')
            text_str(out, "\\0");
        else
            text_add(out, it->command + i, 1);
    text_str(out, " ");
    for (i = 0; i < it->len; i++) {
        snprintf(hex, sizeof hex, "%02x", it->data[i]);
        text_str(out, hex);
    }
    text_str(out, "\n");
}

static void show_skipped(struct text *out, const struct reader *it) {
    static const char *const reasons[] = {"", "unknown-direction", "command-too-long", "buffer-too-long"};
    text_str(out, "skipped ");
    text_number(out, it->id);
    text_str(out, " ");
    text_number(out, it->direction);
    text_str(out, " ");
    text_str(out, reasons[it->skip]);
    text_str(out, " ");
    text_number(out, it->command_len);
    text_str(out, " ");
    text_number(out, it->len);
    text_str(out, " ");
    if (it->skip != SKIP_DIRECTION) text_number(out, it->skip == SKIP_COMMAND ? it->command_limit : it->buffer_limit);
    text_str(out, it->command_len >= 4 && memcmp(it->command, "cmd.", 4) == 0 ? " reserved\n" : " \n");
}

static void show_expected(struct text *out, const char *events, size_t events_len) {
    const char *at = NULL, *event, *keys[] = {"thread_id", "direction", "reason", "command_len", "buffer_len", "limit"};
    size_t len, event_len, i;
    while (next_item(events, events_len, &at, &len)) {
        int is_chunk = ppg_json_get(at, len, "chunk", &event, &event_len);
        if (!is_chunk && !ppg_json_get(at, len, "skipped", &event, &event_len)) continue;
        if (is_chunk) keys[2] = "command", keys[3] = "buffer";
        else keys[2] = "reason", keys[3] = "command_len";
        text_str(out, is_chunk ? "chunk" : "skipped");
        for (i = 0; i < (is_chunk ? 4 : 6); i++) {
            char *text = member_text(event, event_len, keys[i]);
            text_str(out, " ");
            if (text != NULL) text_str(out, text);
            free(text);
        }
        if (!is_chunk) text_str(out, ppg_json_get(event, event_len, "reserved", &keys[0], &i) ? " reserved" : " ");
        keys[0] = "thread_id";
        text_str(out, "\n");
    }
}

static void show_broken(struct text *out, const char *field, uint64_t offset, const char *kind) {
    text_str(out, "broken ");
    text_str(out, field);
    text_str(out, " ");
    text_number(out, offset);
    text_str(out, " ");
    text_str(out, kind);
    text_str(out, "\n");
}

/* Reads a stream that is cut at two places. */
static void run(struct text *out, enum format *format, uint64_t command_limit, uint64_t buffer_limit,
                const unsigned char *bytes, size_t len, size_t cut, size_t step) {
    struct reader reader;
    enum event event = EVENT_NONE;
    size_t from = 0;
    reader_init(&reader, *format, (size_t)command_limit, (size_t)buffer_limit);
    while (from < len && event != EVENT_BROKEN) {
        size_t to = step > 0 ? from + step : from < cut ? cut : len;
        /* In memory of its own, so that a read past the end is seen. */
        unsigned char *piece = malloc(to - from);
        const unsigned char *at = piece;
        memcpy(piece, bytes + from, to - from);
        do {
            event = reader_take(&reader, &at, piece + (to - from));
            if (event == EVENT_CHUNK) {
                show_chunk(out, reader.chunk);
                chunk_free(reader.chunk);
                reader.chunk = NULL;
            } else if (event == EVENT_SKIPPED) {
                show_skipped(out, &reader);
            }
        } while (event == EVENT_CHUNK || event == EVENT_SKIPPED);
        free(piece);
        from = to;
    }
    if (event != EVENT_BROKEN) event = reader_end(&reader);
    if (event == EVENT_BROKEN) show_broken(out, reader.bad_field, reader.bad_offset, reader.bad_kind);
    *format = reader.format;
    reader_free(&reader);
}

/* Writes the chunks again. */
static void rewrite(struct text *out, enum format format, const unsigned char *bytes, size_t len) {
    struct reader reader;
    const unsigned char *at = bytes;
    enum event event;
    reader_init(&reader, format, 65536, 1 << 20);
    while ((event = reader_take(&reader, &at, bytes + len)) == EVENT_CHUNK) {
        chunk *it = reader.chunk;
        char header[HEADER_MAX + 256];
        text_add(out, header, put_header(header, format, it->id, it->direction, it->command, it->command_len, it->len));
        text_add(out, it->data, it->len);
        chunk_free(it);
        reader.chunk = NULL;
    }
    reader_free(&reader);
}

static void vector(enum format format, const char *json, size_t len) {
    char *name = member_text(json, len, "name"), *hex = member_text(json, len, "bytes"), *told;
    unsigned char *bytes = malloc(strlen(hex) + 1);
    struct text expected = {NULL, 0, 0, 0}, first = {NULL, 0, 0, 0};
    const char *value, *at;
    size_t value_len, n = 0, cut;
    uint64_t command_limit = 65536, buffer_limit = 1 << 28;
    enum format found = format;
    text_add(&expected, "", 0);
    for (at = hex; *at != '\0'; at += at[2] == ' ' ? 3 : 2) {
        bytes[n++] = (unsigned char)strtoul(at, NULL, 16);
        if (at[2] == '\0') break;
    }
    if (ppg_json_get(json, len, "limits", &value, &value_len)) {
        command_limit = member_number(value, value_len, "command", command_limit);
        buffer_limit = member_number(value, value_len, "buffer", buffer_limit);
    }
    if (ppg_json_get(json, len, "events", &value, &value_len)) show_expected(&expected, value, value_len);
    if (ppg_json_get(json, len, "error", &value, &value_len)) {
        char *field = member_text(value, value_len, "field"), *kind = member_text(value, value_len, "kind");
        show_broken(&expected, field, member_number(value, value_len, "offset", 0), kind);
        free(field);
        free(kind);
    }
    for (cut = 0; cut <= n + 1; cut++) {
        struct text got = {NULL, 0, 0, 0};
        found = format;
        text_add(&got, "", 0);
        run(&got, &found, command_limit, buffer_limit, bytes, n, cut, cut == n + 1 ? 1 : 0);
        if (strcmp(got.at, expected.at) != 0) {
            complain(name, "cut at %lu of %lu: expected\n%sgot\n%s", (unsigned long)cut, (unsigned long)n, expected.at, got.at);
            cut = n + 1;
        }
        free(got.at);
        checked++;
    }
    told = member_text(json, len, "told");
    if (format == FORMAT_UNKNOWN) {
        const char *is = found == FORMAT_STANDARD ? "standard" : found == FORMAT_CLASSIC ? "classic" : "";
        if (strcmp(is, told == NULL ? "" : told) != 0) complain(name, "the format is %s, and was taken for %s", told, is);
    } else if (!ppg_json_get(json, len, "canonical", &value, &value_len) && strstr(expected.at, "skipped") == NULL &&
               strstr(expected.at, "broken") == NULL) {
        text_add(&first, "", 0);
        rewrite(&first, format, bytes, n);
        if (first.len != n || memcmp(first.at, bytes, n) != 0) complain(name, "is written in another way");
        checked++;
    }
    free(first.at);
    free(expected.at);
    free(told);
    free(name);
    free(hex);
    free(bytes);
}

static void file(const char *folder, const char *name, enum format format) {
    char path[1024];
    struct text json = {NULL, 0, 0, 0};
    const char *vectors, *at = NULL;
    size_t len, item_len, count = 0, n;
    char block[4096];
    FILE *in;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    in = fopen(path, "r");
    if (in == NULL) {
        complain(path, "%s", strerror(errno));
        return;
    }
    while ((n = fread(block, 1, sizeof block, in)) > 0) text_add(&json, block, n);
    fclose(in);
    if (!ppg_json_get(json.at, json.len, "vectors", &vectors, &len)) {
        complain(path, "has no vectors");
    } else {
        while (next_item(vectors, len, &at, &item_len)) {
            vector(format, at, item_len);
            count++;
        }
        if (count < 20) complain(path, "has only %lu vectors", (unsigned long)count);
    }
    free(json.at);
}

static int valid(const char *json) { return json_is_valid(json, strlen(json)); }

static void text_and_json(void) {
    static const char *const good[] = {"{}", " [1, -2.5e+3, \"\\ud83d\\ude00\", null, true]\n", "0", "\"\"", "{\"a\":{\"b\":[]}}"};
    static const char *const bad[] = {"",       "{",        "{\"a\"}", "[1,]", "01",  "1.",        "+1", "nul",
                                      "\"\\x\"", "\"\\ud800\"", "\"\n\"",  "{} {}", "[1 2]", "\"\xff\"", "{a:1}"};
    const char *value;
    size_t len, i;
    char *text, deep[1001];
    uint64_t number;
    for (i = 0; i < sizeof good / sizeof *good; i++) check(valid(good[i]), good[i]);
    for (i = 0; i < sizeof bad / sizeof *bad; i++) check(!valid(bad[i]), bad[i]);
    memset(deep, '[', 1000);
    deep[1000] = '\0';
    check(!valid(deep), "deep");
    check(ppg_json_get("{\"a\":1,\"b\":[2],\"a\":\"x\\u00e9\"}", 29, "a", &value, &len), "get");
    text = ppg_json_text(value, len);
    check(text != NULL && strcmp(text, "x\xc3\xa9") == 0, "the last one counts");
    free(text);
    text = ppg_json_text("\"a\\u0000b\"", 10);
    check(text == NULL, "a NUL is no C string");
    free(text);
    text = ppg_json_quote("a\"\\\n\x01\xc3\xa9");
    check(text != NULL && strcmp(text, "\"a\\\"\\\\\\n\\u0001\xc3\xa9\"") == 0, "quote");
    free(text);
    check(parse_number("18446744073709551615", 20, &number) && number == UINT64_MAX, "largest number");
    check(!parse_number("18446744073709551616", 20, &number) && !parse_number("", 0, &number), "no numbers");
    check(!parse_number("01", 2, &number) && !parse_number("-1", 2, &number) && !parse_number("1 ", 2, &number), "no numbers");
    check(utf8_prefix("\xed\xa0\x80", 3) == 0 && utf8_prefix("\xc0\x80", 2) == 0, "surrogate, long form");
    check(utf8_prefix("a\xf4\x90\x80\x80", 5) == 1 && utf8_prefix("\xf0\x9f\x98\x80", 4) == 4, "four bytes");
}

int main(int argc, char **argv) {
    if (argc < 2) {
        fputs("usage: vectors FOLDER\n", stderr);
        return 2;
    }
    file(argv[1], "standard.json", FORMAT_STANDARD);
    file(argv[1], "classic.json", FORMAT_CLASSIC);
    file(argv[1], "detect.json", FORMAT_UNKNOWN);
    text_and_json();
    printf("vectors: %d checked, %d failed\n", checked, failed);
    return failed > 0;
}
