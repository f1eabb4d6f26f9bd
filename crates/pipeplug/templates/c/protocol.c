#define _GNU_SOURCE
#include "protocol.h"

#include <ctype.h>
#include <errno.h>
#include <fcntl.h>
#include <inttypes.h>
#include <pthread.h>
#include <signal.h>
#include <stdarg.h>
#include <stdbool.h>
#include <stdint.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

enum { ONE_WAY = 1, REQUEST = 2, RESPONSE = 3 };

/* Limits in bytes: of a command, of its data, and of all that waits to be handled or to be read by the host. */
enum { LONGEST_COMMAND = 64 << 10, LONGEST_DATA = 256 << 20, MOST_WAITING = 64 << 20 };
enum { WORKERS = 8 };

static void die(const char *format, ...) __attribute__((format(printf, 1, 2), noreturn));

static void die(const char *format, ...) {
    va_list args;
    va_start(args, format);
    fputs("the connection has ended: ", stderr);
    vfprintf(stderr, format, args);
    fputc('\n', stderr);
    va_end(args);
    _exit(1);
}

static void *grown(void *bytes, size_t size) {
    bytes = realloc(bytes, size);
    if (bytes == NULL) die("no memory for %zu bytes", size);
    return bytes;
}

/* ---- queues ---- */

/* A chunk that came, or bytes to be written. */
struct item {
    struct item *next;
    uint64_t id, direction;
    char *command, *data; /* NULL if over the limit */
    size_t command_length, length;
};

struct queue {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    struct item *first, **last;
    size_t waiting; /* bytes, also of items that are worked on */
    bool is_closed;
};

static void queue_init(struct queue *queue) {
    *queue = (struct queue){ .first = NULL };
    queue->last = &queue->first;
    pthread_mutex_init(&queue->lock, NULL);
    pthread_cond_init(&queue->changed, NULL);
}

/* Waits while too much is waiting. */
static void queue_put(struct queue *queue, struct item *item) {
    pthread_mutex_lock(&queue->lock);
    while (queue->waiting >= MOST_WAITING) pthread_cond_wait(&queue->changed, &queue->lock);
    queue->waiting += item->length + 64;
    item->next = NULL;
    *queue->last = item;
    queue->last = &item->next;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

/* Waits for an item. NULL when the queue is closed and empty. */
static struct item *queue_take(struct queue *queue) {
    pthread_mutex_lock(&queue->lock);
    while (queue->first == NULL && !queue->is_closed) pthread_cond_wait(&queue->changed, &queue->lock);
    struct item *item = queue->first;
    if (item != NULL) {
        queue->first = item->next;
        if (queue->first == NULL) queue->last = &queue->first;
    }
    pthread_mutex_unlock(&queue->lock);
    return item;
}

static void queue_done(struct queue *queue, struct item *item) {
    pthread_mutex_lock(&queue->lock);
    queue->waiting -= item->length + 64;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
    free(item->command);
    free(item->data);
    free(item);
}

static void queue_close(struct queue *queue) {
    pthread_mutex_lock(&queue->lock);
    queue->is_closed = true;
    pthread_cond_broadcast(&queue->changed);
    pthread_mutex_unlock(&queue->lock);
}

/* ---- reading ---- */

static struct {
    int descriptor;
    char bytes[64 << 10];
    size_t at, end;
    bool is_known, is_classic;
} in;

static void in_more(void) {
    ssize_t count;
    do count = read(in.descriptor, in.bytes, sizeof in.bytes);
    while (count < 0 && errno == EINTR);
    if (count < 0) die("cannot read: %s", strerror(errno));
    if (count == 0) die("end of the input");
    in.at = 0;
    in.end = (size_t)count;
}

static int in_byte(void) {
    if (in.at == in.end) in_more();
    return (unsigned char)in.bytes[in.at++];
}

struct digits {
    char text[24];
    size_t count;
    int end; /* the byte after them, -1 if there are 21 digits */
};

static struct digits in_digits(void) {
    struct digits digits = { .end = -1 };
    while (digits.count <= 20) {
        int byte = in_byte();
        if (!isdigit(byte)) {
            digits.end = byte;
            break;
        }
        digits.text[digits.count++] = (char)byte;
    }
    return digits;
}

static uint64_t number_of(const struct digits *digits) {
    bool is_empty = digits->count == 0;
    errno = 0;
    uint64_t number = is_empty ? 0 : strtoull(digits->text, NULL, 10);
    bool has_zero = digits->count > 1 && digits->text[0] == '0';
    if (digits->end != 0 || has_zero || errno != 0 || (is_empty && !in.is_classic))
        die("not a number of a chunk: \"%s\" before byte %d", digits->text, digits->end);
    return number;
}

/* Bytes with a NUL after them; NULL if there are more than the limit. Memory grows with what arrives. */
static char *in_field(uint64_t length, uint64_t limit) {
    bool is_kept = length <= limit;
    char *bytes = is_kept ? grown(NULL, 1) : NULL;
    size_t have = 0, room = 1;
    for (uint64_t left = length; left > 0;) {
        if (in.at == in.end) in_more();
        size_t some = in.end - in.at < left ? in.end - in.at : (size_t)left;
        if (is_kept) {
            if (have + some + 1 > room) {
                room = 2 * (have + some) < length ? 2 * (have + some) + 1 : (size_t)length + 1;
                bytes = grown(bytes, room);
            }
            memcpy(bytes + have, in.bytes + in.at, some);
            have += some;
        }
        in.at += some;
        left -= some;
    }
    if (is_kept) bytes[have] = '\0';
    return bytes;
}

/* A command of the classic format, which a space ends. `read` is what was read of it, or NULL. */
static char *in_classic_command(const struct digits *read, size_t *length) {
    char *command = grown(NULL, LONGEST_COMMAND + 1);
    size_t count = read == NULL ? 0 : read->count;
    if (read != NULL) memcpy(command, read->text, count);
    int byte = read == NULL || read->end < 0 ? in_byte() : read->end;
    for (; byte != ' '; byte = in_byte()) {
        if (byte == 0) die("a NUL in a command");
        if (count < LONGEST_COMMAND) command[count] = (char)byte;
        count++;
    }
    *length = count;
    if (count > LONGEST_COMMAND) {
        free(command);
        return NULL;
    }
    command[count] = '\0';
    return command;
}

static bool is_utf8(const char *text, size_t length) {
    const unsigned char *at = (const unsigned char *)text, *end = at + length;
    while (at < end) {
        int more = *at < 0x80 ? 0 : *at >= 0xC2 && *at < 0xE0 ? 1 : *at >= 0xE0 && *at < 0xF0 ? 2 : *at >= 0xF0 && *at < 0xF5 ? 3 : -1;
        if (more < 0 || end - at <= more) return false;
        /* Too long, surrogates, above U+10FFFF. */
        unsigned char low = *at == 0xE0 ? 0xA0 : *at == 0xF0 ? 0x90 : 0x80;
        unsigned char high = *at == 0xED ? 0x9F : *at == 0xF4 ? 0x8F : 0xBF;
        at++;
        for (; more > 0; more--, at++, low = 0x80, high = 0xBF)
            if (*at < low || *at > high) return false;
    }
    return true;
}

static struct item *in_chunk(void) {
    struct digits id = in_digits(), direction = in_digits(), third;
    bool has_third = false;
    if (!in.is_known) {
        in.is_known = true;
        in.is_classic = id.count == 0 || direction.count == 0;
        if (!in.is_classic) {
            third = in_digits();
            has_third = true;
            in.is_classic = third.end != 0 || third.count > 20;
        }
    }
    struct item *chunk = grown(NULL, sizeof *chunk);
    *chunk = (struct item){ .id = number_of(&id), .direction = number_of(&direction) };
    if (in.is_classic) {
        chunk->command = in_classic_command(has_third ? &third : NULL, &chunk->command_length);
    } else {
        if (!has_third) third = in_digits();
        uint64_t length = number_of(&third);
        chunk->command = in_field(length, LONGEST_COMMAND);
        chunk->command_length = (size_t)length;
        if (in_byte() != 0) die("no NUL after a command");
    }
    bool is_known = chunk->direction >= ONE_WAY && chunk->direction <= RESPONSE;
    if (is_known && chunk->command != NULL && !is_utf8(chunk->command, chunk->command_length))
        die("a command that is not UTF-8");
    struct digits digits = in_digits();
    uint64_t length = number_of(&digits);
    chunk->data = in_field(length, LONGEST_DATA);
    chunk->length = chunk->data == NULL ? 0 : (size_t)length;
    return chunk;
}

/* ---- writing ---- */

static struct {
    int descriptor;
    struct queue queue;
} out;

static size_t put_number(char *at, uint64_t number) {
    return in.is_classic && number == 0 ? 0 : (size_t)sprintf(at, "%" PRIu64, number);
}

static void respond(uint64_t id, const char *command, size_t command_length, const char *data, size_t length) {
    struct item *item = grown(NULL, sizeof *item);
    *item = (struct item){ .data = grown(NULL, 80 + command_length + length) };
    char *at = item->data;
    at += put_number(at, id);
    *at++ = '\0';
    *at++ = '3';
    *at++ = '\0';
    if (!in.is_classic) {
        at += put_number(at, command_length);
        *at++ = '\0';
    }
    memcpy(at, command, command_length);
    at += command_length;
    *at++ = in.is_classic ? ' ' : '\0';
    at += put_number(at, length);
    *at++ = '\0';
    if (length > 0) memcpy(at, data, length);
    item->length = (size_t)(at - item->data) + length;
    queue_put(&out.queue, item);
}

/* Writes on a thread of its own, so that a host that reads slowly does not stop the reader. */
static void *write_all(void *unused) {
    (void)unused;
    struct item *item;
    while ((item = queue_take(&out.queue)) != NULL) {
        for (size_t done = 0; done < item->length;) {
            ssize_t count = write(out.descriptor, item->data + done, item->length - done);
            if (count < 0 && errno != EINTR) die("the host does not read: %s", strerror(errno));
            if (count > 0) done += (size_t)count;
        }
        queue_done(&out.queue, item);
    }
    return NULL;
}

/* ---- handling ---- */

struct reply {
    char *bytes;
    size_t length, room;
    bool is_error;
};

static struct queue requests;
static answer_function *answer_request;

void reply_bytes(struct reply *reply, const void *bytes, size_t length) {
    if (reply->length + length > reply->room) {
        reply->room = 2 * (reply->length + length);
        reply->bytes = grown(reply->bytes, reply->room);
    }
    if (length > 0) memcpy(reply->bytes + reply->length, bytes, length);
    reply->length += length;
}

void reply_error(struct reply *reply, const char *format, ...) {
    va_list args;
    va_start(args, format);
    char *text = NULL;
    int length = vasprintf(&text, format, args);
    va_end(args);
    reply->length = 0;
    reply->is_error = true;
    if (length > 0) reply_bytes(reply, text, (size_t)length);
    if (length >= 0) free(text);
}

static void *work(void *unused) {
    (void)unused;
    struct item *chunk;
    while ((chunk = queue_take(&requests)) != NULL) {
        struct reply reply = { .bytes = NULL };
        answer_request(chunk->command, chunk->data, chunk->length, &reply);
        if (chunk->direction == REQUEST && reply.is_error)
            respond(chunk->id, "cmd.error", 9, reply.bytes, reply.length);
        else if (chunk->direction == REQUEST)
            respond(chunk->id, chunk->command, chunk->command_length, reply.bytes, reply.length);
        else if (reply.is_error)
            fprintf(stderr, "%s: %.*s\n", chunk->command, (int)reply.length, reply.bytes);
        free(reply.bytes);
        queue_done(&requests, chunk);
    }
    return NULL;
}

static bool is_command(const struct item *chunk, const char *command) {
    return chunk->command != NULL && chunk->command_length == strlen(command) && strcmp(chunk->command, command) == 0;
}

/* Answers what needs no handler. False for cmd.stop. */
static bool take(struct item *chunk, const char *metadata) {
    bool is_request = chunk->direction == REQUEST, is_one_way = chunk->direction == ONE_WAY;
    bool is_too_long = chunk->command == NULL || chunk->data == NULL;
    if (is_one_way && is_command(chunk, "cmd.stop")) return false;
    if (is_request && is_too_long) {
        char text[80];
        int length = snprintf(text, sizeof text, "over the limit of %d bytes for a command, %d for data", LONGEST_COMMAND,
                              LONGEST_DATA);
        respond(chunk->id, "cmd.error", 9, text, (size_t)length);
    } else if (is_too_long || !(is_request || is_one_way)) {
        /* Of no use. */
    } else if (is_request && is_command(chunk, "GetMetadata")) {
        respond(chunk->id, chunk->command, chunk->command_length, metadata, strlen(metadata));
    } else if (is_request && is_command(chunk, "cmd.ping")) {
        respond(chunk->id, chunk->command, chunk->command_length, NULL, 0);
    } else if (is_request || strncmp(chunk->command, "cmd.", 4) != 0) {
        queue_put(&requests, chunk);
        return true;
    }
    free(chunk->command);
    free(chunk->data);
    free(chunk);
    return true;
}

static bool is_number(const char *text) {
    return text[0] != '\0' && text[strspn(text, "0123456789")] == '\0';
}

int serve(int argc, char **argv, answer_function *answer, const char *metadata) {
    if (argc >= 3 && is_number(argv[1]) && is_number(argv[2])) {
        in.descriptor = atoi(argv[1]);
        out.descriptor = atoi(argv[2]);
    } else {
        in.descriptor = 0;
        out.descriptor = dup(1);
        dup2(2, 1); /* printf must not write between chunks */
    }
    fcntl(in.descriptor, F_SETFD, FD_CLOEXEC);
    fcntl(out.descriptor, F_SETFD, FD_CLOEXEC);
    signal(SIGPIPE, SIG_IGN);
    answer_request = answer;
    queue_init(&requests);
    queue_init(&out.queue);
    pthread_t writer, workers[WORKERS];
    if (pthread_create(&writer, NULL, write_all, NULL) != 0) die("cannot create a thread");
    for (int i = 0; i < WORKERS; i++)
        if (pthread_create(&workers[i], NULL, work, NULL) != 0) die("cannot create a thread");

    while (take(in_chunk(), metadata)) continue;

    /* What came before the stop is answered. */
    queue_close(&requests);
    for (int i = 0; i < WORKERS; i++) pthread_join(workers[i], NULL);
    queue_close(&out.queue);
    pthread_join(writer, NULL);
    return 0;
}
