/* Random and mutated input for the reader of chunks, for the JSON functions, and for a guest that is connected.
 *
 *     fuzz FOLDER [INPUTS [SEED]]     crates/pipeplug-wire/tests/vectors; made for the sanitizers
 *
 * The same seed gives the same inputs. A failure says the input's number and its bytes.
 */
#include "../pipeplug.c" /* its reader is not public */

static unsigned long state = 1;
static int failed;

static unsigned long next(unsigned long below) { /* xorshift */
    state ^= state << 13 & 0xffffffffUL;
    state ^= state >> 17;
    state ^= state << 5 & 0xffffffffUL;
    state &= 0xffffffffUL;
    return state % below;
}

struct bytes {
    unsigned char at[1024];
    size_t len;
};

static struct bytes seeds[2048];
static size_t seed_count;

static void complain(const char *what, unsigned long number, const struct bytes *it) {
    size_t i;
    fprintf(stderr, "fuzz: input %lu: %s:", number, what);
    for (i = 0; i < it->len; i++) fprintf(stderr, " %02x", it->at[i]);
    fputc('\n', stderr);
    failed++;
}

/* Takes the members "bytes" of the vectors: hex digits. */
static void read_seeds(const char *folder, const char *name) {
    char path[1024], line[65536];
    FILE *in;
    snprintf(path, sizeof path, "%s/%s", folder, name);
    in = fopen(path, "r");
    if (in == NULL) {
        fprintf(stderr, "fuzz: %s: %s\n", path, strerror(errno));
        exit(1);
    }
    while (fgets(line, sizeof line, in) != NULL) {
        const char *at = strstr(line, "\"bytes\": \"");
        struct bytes *it = &seeds[seed_count];
        if (at == NULL || seed_count == sizeof seeds / sizeof *seeds) continue;
        for (at += 10; *at != '"' && *at != '\0' && it->len < sizeof it->at; at += at[2] == ' ' ? 3 : 2)
            it->at[it->len++] = (unsigned char)strtoul((char[]){at[0], at[1], '\0'}, NULL, 16);
        seed_count++;
    }
    fclose(in);
}

static void insert(struct bytes *it, size_t at, const unsigned char *from, size_t len) {
    if (it->len + len > sizeof it->at) return;
    memmove(it->at + at + len, it->at + at, it->len - at);
    memcpy(it->at + at, from, len);
    it->len += len;
}

static void mutate(struct bytes *it) {
    static const char *const pieces[] = {"18446744073709551615", "18446744073709551616", "0", "00", "-1", "999999999999",
                                         "cmd.context", "\xff\xfe", "\xed\xa0\x80", " ", "4", "1"};
    static const unsigned char likely[] = {0, ' ', '0', '1', '2', '3', '9', 0x80, 0xC3, 0xFF};
    unsigned long n = 1 + next(4);
    while (n-- > 0) {
        size_t at = (size_t)next(it->len + 1), len = (size_t)next(16);
        const struct bytes *other = &seeds[next(seed_count)];
        const char *piece = pieces[next(sizeof pieces / sizeof *pieces)];
        switch (next(7)) {
        case 0:
            if (at < it->len) it->at[at] ^= (unsigned char)(1U << next(8));
            break;
        case 1:
            if (at < it->len) it->at[at] = likely[next(sizeof likely)];
            break;
        case 2: insert(it, at, &likely[next(sizeof likely)], 1); break;
        case 3: insert(it, at, (const unsigned char *)piece, strlen(piece)); break;
        case 4:
            if (len > it->len - at) len = it->len - at;
            memmove(it->at + at, it->at + at + len, it->len - at - len);
            it->len -= len;
            break;
        case 5: it->len = at; break;
        default:
            if (len < other->len) insert(it, at, other->at + len, other->len - len);
            break;
        }
    }
}

/* Reads the input in pieces, and sums up what comes out. A chunk that was read is written, and is the same when it is read
 * again. */
static uint64_t read_all(const struct bytes *it, enum format format, size_t command_limit, size_t buffer_limit, int in_pieces,
                         unsigned long number) {
    struct reader reader;
    enum event event = EVENT_NONE;
    size_t from = 0;
    uint64_t sum = 14695981039346656037U;
#define SUM(value) sum = (sum ^ (uint64_t)(value)) * 1099511628211U
    if (!reader_init(&reader, format, command_limit, buffer_limit)) abort();
    while (from < it->len && event != EVENT_BROKEN) {
        size_t len = in_pieces ? 1 + (size_t)next(it->len - from) : it->len - from;
        unsigned char *piece = malloc(len); /* of its own, so that a read past the end is seen */
        const unsigned char *at = piece;
        if (piece == NULL) abort();
        memcpy(piece, it->at + from, len);
        while ((event = reader_take(&reader, &at, piece + len)) == EVENT_CHUNK || event == EVENT_SKIPPED) {
            SUM(event);
            SUM(reader.id);
            SUM(reader.direction);
            SUM(reader.command_len);
            SUM(reader.len);
            if (event == EVENT_CHUNK) {
                chunk *got = reader.chunk, *again;
                char header[HEADER_MAX + 1024];
                size_t n = put_header(header, reader.format, got->id, got->direction, got->command, got->command_len, got->len), i;
                struct reader second;
                const unsigned char *first = (unsigned char *)header;
                for (i = 0; i < got->len; i++) SUM(got->data[i]);
                if (!reader_init(&second, reader.format, command_limit, buffer_limit)) abort();
                event = reader_take(&second, &first, first + n);
                if (event == EVENT_NONE) {
                    first = got->data;
                    event = reader_take(&second, &first, first + got->len);
                }
                again = second.chunk;
                if (event != EVENT_CHUNK || again->id != got->id || again->direction != got->direction || again->len != got->len ||
                    again->command_len != got->command_len || memcmp(again->command, got->command, got->command_len) != 0 ||
                    memcmp(again->data, got->data, got->len) != 0)
                    complain("a chunk is another one after it was written and read", number, it);
                reader_free(&second);
                chunk_free(got);
                reader.chunk = NULL;
            }
        }
        free(piece);
        from += len;
    }
    if (event != EVENT_BROKEN) event = reader_end(&reader);
    SUM(event);
    SUM(reader.format);
    if (event == EVENT_BROKEN) {
        if (reader.bad_offset > it->len) complain("the error is behind the input", number, it);
        SUM(reader.bad_offset);
        SUM(strlen(reader.bad_kind) + strlen(reader.bad_field));
    }
    reader_free(&reader);
    return sum;
}

static void readers(unsigned long inputs) {
    unsigned long i;
    for (i = 0; i < inputs; i++) {
        struct bytes it = seeds[next(seed_count)];
        enum format format = (enum format)next(3);
        size_t command_limit = next(2) ? 1000 : 1 + (size_t)next(20), buffer_limit = next(2) ? 1 << 20 : 1 + (size_t)next(20);
        if (next(50) == 0)
            for (it.len = 0; it.len < 40; it.len++) it.at[it.len] = (unsigned char)next(256);
        mutate(&it);
        if (read_all(&it, format, command_limit, buffer_limit, 0, i) != read_all(&it, format, command_limit, buffer_limit, 1, i))
            complain("in pieces it is read otherwise", i, &it);
    }
}

static const char *const TEXTS[] = {
    "",
    "hello",
    "{\"deadline_ms\":5,\"progress\":true,\"stream\":\"send receive\",\"values\":{\"a\":\"\\u00e9\\ud83d\\ude00\"}}",
    "{\"stream\":\"send receive\"}",
    "{\"progress\":true}",
    "{\"done\":3,\"total\":10,\"message\":\"x\"}",
    "{\"code\":\"c\",\"message\":\"m\",\"data\":[1,-2.5e+3,null,{\"a\":{}}]}",
    "{\"pipeplug.features\":\"flow context cancel stream progress failure log\",\"pipeplug.window\":\"100\"}",
    "165",
    "18446744073709551615",
    "0",
};

static size_t text_of(struct bytes *it) {
    const char *text = TEXTS[next(sizeof TEXTS / sizeof *TEXTS)];
    it->len = strlen(text);
    memcpy(it->at, text, it->len);
    if (next(3) == 0) mutate(it);
    return it->len;
}

static void json(unsigned long inputs) {
    unsigned long i;
    for (i = 0; i < inputs; i++) {
        struct bytes it;
        const char *value;
        char *text, *copy;
        size_t len;
        struct context context;
        chunk *reply = calloc(1, sizeof *reply + 1);
        text_of(&it);
        copy = malloc(it.len + 1);
        if (copy == NULL || reply == NULL) abort();
        memcpy(copy, it.at, it.len);
        copy[it.len] = '\0';
        if (ppg_json_get(copy, it.len, "code", &value, &len) && !json_is_valid(value, len)) complain("a value is no JSON", i, &it);
        if ((text = ppg_json_text(copy, it.len)) != NULL && utf8_prefix(text, strlen(text)) != strlen(text))
            complain("a text is not UTF-8", i, &it);
        free(text);
        memset(&context, 0, sizeof context);
        reply->command = (char *)(reply + 1);
        reply->data = (unsigned char *)copy;
        reply->len = it.len;
        context_read(&context, reply);
        context_clear(&context);
        read_failure(reply);
        chunk_free(reply);
    }
}

/* ---- A guest, and what a host may send it ---- */

static void handler(ppg_request *request, void *user) {
    ppg_stream *stream = ppg_request_stream(request);
    const void *data;
    size_t len;
    (void)user;
    ppg_progress(request, 1, 2, "x");
    if (stream != NULL && ppg_request_len(request) % 2 == 0) {
        ppg_send_part(stream, "part", 4, NULL);
        if (ppg_next_part(stream, &data, &len, NULL) == PPG_OK) ppg_enough(stream, "enough");
    }
    if (ppg_request_len(request) % 3 == 0)
        ppg_fail(request, "code", "message", "{}");
    else
        ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
}

static void quiet(const char *line, void *user) {
    (void)line;
    (void)user;
}

static void *guest(void *of) {
    int *fds = of;
    char from[16], to[16];
    char *argv[] = {"fuzz", from, to, NULL};
    ppg_peer *host = ppg_guest_new("fuzz");
    snprintf(from, sizeof from, "%d", fds[0]);
    snprintf(to, sizeof to, "%d", fds[1]);
    ppg_on(host, "echo", handler, NULL);
    ppg_on_warning(host, quiet, NULL);
    ppg_set_windows(host, 1000, 200);
    ppg_set_limits(host, 40, 300);
    ppg_guest_run(host, 3, argv);
    return NULL;
}

static void *drain(void *of) {
    char block[4096];
    while (read(*(int *)of, block, sizeof block) > 0) continue;
    return NULL;
}

static void guests(unsigned long inputs) {
    static const char *const commands[] = {"echo", "echo", "GetMetadata", "GetServices", "none", "cmd.context", "cmd.context", "cmd.part", "cmd.part",
                                           "cmd.end", "cmd.enough", "cmd.part.credit", "cmd.credit", "cmd.cancel", "cmd.progress", "cmd.failure",
                                           "cmd.error", "cmd.ping", "cmd.log_level", "cmd.stop", "cmd.none"};
    unsigned long i, chunks;
    for (i = 0; i < inputs; i++) {
        int to[2], from[2], ends[2];
        pthread_t threads[2];
        enum format format = next(4) == 0 ? FORMAT_CLASSIC : FORMAT_STANDARD;
        if (pipe(to) != 0 || pipe(from) != 0) abort();
        ends[0] = to[0];
        ends[1] = from[1];
        if (pthread_create(&threads[0], NULL, guest, ends) != 0 || pthread_create(&threads[1], NULL, drain, &from[0]) != 0) abort();
        for (chunks = 1 + next(60); chunks > 0; chunks--) {
            struct bytes data;
            char header[HEADER_MAX + 64];
            const char *command = commands[next(sizeof commands / sizeof *commands)];
            size_t len = text_of(&data), n;
            if (strcmp(command, "cmd.stop") == 0 && next(8) != 0) command = "echo";
            if (next(30) == 0) len = data.len = 400;
            n = put_header(header, format, 1 + next(3), next(10) == 0 ? (int)next(5) : strcmp(command, "echo") == 0 ? 2 : 1 + 2 * (int)next(2), command, strlen(command), len);
            if (next(200) == 0) header[next(n)] ^= 1;
            if (write(to[1], header, n) < 0 || (len > 0 && write(to[1], data.at, len) < 0)) break;
        }
        close(to[1]);
        pthread_join(threads[0], NULL);
        pthread_join(threads[1], NULL);
        close(from[0]);
    }
}

int main(int argc, char **argv) {
    unsigned long inputs = argc > 2 ? strtoul(argv[2], NULL, 10) : 100000;
    if (argc < 2) {
        fputs("usage: fuzz FOLDER [INPUTS [SEED]]\n", stderr);
        return 2;
    }
    if (argc > 3 && strtoul(argv[3], NULL, 10) > 0) state = strtoul(argv[3], NULL, 10);
    signal(SIGPIPE, SIG_IGN);
    read_seeds(argv[1], "standard.json");
    read_seeds(argv[1], "classic.json");
    read_seeds(argv[1], "detect.json");
    if (seed_count < 60) {
        fprintf(stderr, "fuzz: only %lu vectors\n", (unsigned long)seed_count);
        return 1;
    }
    readers(inputs);
    json(inputs / 4);
    guests(inputs / 1000);
    printf("fuzz: %lu inputs of the reader, %lu of JSON, %lu of a guest, %d failures\n", inputs, inputs / 4, inputs / 1000, failed);
    return failed > 0;
}
