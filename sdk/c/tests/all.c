/* A plugin that uses everything, for the tests of this folder and for `pipeplug conform`. */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <unistd.h>

#include "pipeplug.h"

/* Parts come back, and then the data of the request. */
static void echo(ppg_request *request, void *user) {
    ppg_stream *stream = ppg_request_stream(request);
    const void *data;
    size_t len;
    ppg_error error;
    ppg_status status = PPG_END;
    (void)user;
    if (ppg_request_len(request) == 5) printf("a stray line\n");
    while (stream != NULL && (status = ppg_next_part(stream, &data, &len, &error)) == PPG_OK) {
        ppg_status sent = ppg_send_part(stream, data, len, NULL);
        if (sent != PPG_OK && sent != PPG_EINVAL && sent != PPG_EENOUGH) break;
    }
    if (status == PPG_END || status == PPG_OK || status == PPG_EINVAL)
        ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
    else
        ppg_fail(request, NULL, error.message, NULL);
}

/* Sleeps for so many milliseconds, and reports each of them; ends early if it is given up. */
static void sleep_ms(ppg_request *request, void *user) {
    int ms = atoi(ppg_request_data(request)), i;
    (void)user;
    for (i = 0; i < ms; i += 10) {
        ppg_progress(request, (uint64_t)i, (uint64_t)ms, "sleeping");
        if (ppg_request_wait_cancelled(request, 10) == 1) {
            ppg_fail(request, "gave_up", "the sleep was given up", NULL);
            return;
        }
        if (ppg_request_wait_cancelled(request, 0) == 2) {
            /* Stopping: it sleeps on, as a handler does that does not look. */
            struct timespec pause = {0, 10000000};
            nanosleep(&pause, NULL);
        }
    }
    ppg_answer(request, "slept", 5);
}

/* Works without a look at anything else. */
static void work(ppg_request *request, void *user) {
    struct timespec pause = {0, 0};
    int ms = atoi(ppg_request_data(request));
    (void)user;
    pause.tv_sec = ms / 1000;
    pause.tv_nsec = (long)(ms % 1000) * 1000000;
    nanosleep(&pause, NULL);
    if (strstr(ppg_request_data(request), "fail") != NULL)
        ppg_fail(request, "failed", "it failed", NULL);
    else
        ppg_answer(request, "worked", 6);
}

/* Calls the host back with the same data. */
static void back(ppg_request *request, void *user) {
    ppg_reply *reply = NULL;
    ppg_error error;
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    (void)user;
    options.parent = request;
    if (ppg_call(ppg_request_peer(request), "echo", ppg_request_data(request), ppg_request_len(request), &options, &reply,
                 &error) == PPG_OK)
        ppg_answer(request, ppg_reply_data(reply), ppg_reply_len(reply));
    else
        ppg_fail(request, NULL, error.message, NULL);
    ppg_reply_free(reply);
}

static void fails(ppg_request *request, void *user) {
    (void)user;
    ppg_fail(request, "not_found", "there is no page \"x\"", "{\"name\":\"x\"}");
}

static void nothing(ppg_request *request, void *user) {
    (void)request;
    (void)user;
}

static void crash(ppg_request *request, void *user) {
    (void)request;
    (void)user;
    fprintf(stderr, "about to crash\n");
    abort();
}

/* Exits as a library may that a handler calls. */
static void ends(ppg_request *request, void *user) {
    (void)user;
    _exit(atoi(ppg_request_data(request)));
}

static void say(ppg_request *request, void *user) {
    (void)user;
    fprintf(stderr, "%s\n", ppg_request_text(request));
    ppg_answer(request, NULL, 0);
}

/* Codes and data that cannot be sent are left out. */
static void bad_code(ppg_request *request, void *user) {
    static const char *const codes[] = {"bad code", "\xff", "line\n", "good_code", "no message"};
    int i = atoi(ppg_request_text(request));
    (void)user;
    if (ppg_fail(request, codes[i], i == 4 ? NULL : "the message", i == 3 ? "{no json}" : "[1]") == PPG_EINVAL)
        fprintf(stderr, "refused %d\n", i);
}

/* Answers as the original Go package does: classic format, a header byte by byte, a buffer with one read. */
static int one_read(int rfd, int wfd) {
    static char buffer[2 << 20];
    char header[256], reply[64], command[64] = "";
    for (;;) {
        size_t n = 0, nuls = 0, len;
        ssize_t got = 0;
        int head;
        char *space;
        while (n < sizeof header && nuls < 3 && read(rfd, header + n, 1) == 1)
            if (header[n++] == '\0') nuls++;
        if (nuls < 3) return 1;
        space = strchr(header + strlen(header) + 3, ' ');
        *space = '\0';
        snprintf(command, sizeof command, "%s", header + strlen(header) + 3);
        len = strtoul(space + 1, NULL, 10);
        if (len > 0) got = read(rfd, buffer, len);
        if (strcmp(command, "cmd.stop") == 0) return 0;
        n = (size_t)snprintf(buffer, 32, strcmp(command, "GetMetadata") == 0 ? "{}" : "%ld", (long)got);
        head = snprintf(reply, sizeof reply, "%s_3_%s %lu_", header, command, (unsigned long)n);
        memcpy(reply + head, buffer, n);
        reply[strlen(header)] = reply[strlen(header) + 2] = reply[head - 1] = '\0';
        if (write(wfd, reply, (size_t)head + n) < 0) return 1;
    }
}

static void config(ppg_request *request, void *user) {
    const char *json = ppg_guest_config(ppg_request_peer(request));
    (void)user;
    if (json == NULL) json = "none";
    ppg_answer(request, json, strlen(json));
}

static void value(ppg_request *request, void *user) {
    const char *found = ppg_request_value(request, ppg_request_data(request));
    (void)user;
    if (found == NULL) found = "";
    ppg_answer(request, found, strlen(found));
}

static void *answer_later(void *of) {
    struct timespec pause = {0, 5000000};
    nanosleep(&pause, NULL);
    ppg_answer(of, "later", 5);
    return NULL;
}

static void later(ppg_request *request, void *user) {
    pthread_t thread;
    (void)user;
    ppg_request_keep(request);
    if (pthread_create(&thread, NULL, answer_later, request) == 0)
        pthread_detach(thread);
    else
        ppg_fail(request, NULL, "no thread", NULL);
}

/* Stream of so many numbers. */
static void count(ppg_request *request, void *user) {
    ppg_stream *stream = ppg_request_stream(request);
    int n = atoi(ppg_request_data(request)), i;
    ppg_error error;
    (void)user;
    for (i = 0; i < n; i++) {
        char number[16];
        int len = snprintf(number, sizeof number, "%d", i);
        ppg_status status = ppg_send_part(stream, number, (size_t)len, &error);
        if (status == PPG_EENOUGH) break;
        if (status != PPG_OK) {
            ppg_fail(request, NULL, error.message, NULL);
            return;
        }
    }
    ppg_answer(request, "counted", 7);
}

/* Number of bytes that the one-way "add" has brought so far. */
static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static unsigned long long sum;

static void add(ppg_request *request, void *user) {
    ppg_stream *stream = ppg_request_stream(request);
    const void *data;
    size_t len = ppg_request_len(request);
    (void)user;
    pthread_mutex_lock(&lock);
    sum += len;
    pthread_mutex_unlock(&lock);
    while (stream != NULL && ppg_next_part(stream, &data, &len, NULL) == PPG_OK) {
        pthread_mutex_lock(&lock);
        sum += len;
        pthread_mutex_unlock(&lock);
    }
}

static void total(ppg_request *request, void *user) {
    char text[32];
    (void)user;
    pthread_mutex_lock(&lock);
    snprintf(text, sizeof text, "%llu", sum);
    pthread_mutex_unlock(&lock);
    ppg_answer(request, text, strlen(text));
}

static int start(ppg_peer *host, void *user) {
    char **args = ppg_guest_args(host);
    (void)user;
    if (args[0] != NULL && strcmp(args[0], "--fail") == 0) {
        fprintf(stderr, "no license\n");
        return 1;
    }
    if (args[0] != NULL && strcmp(args[0], "--ask") == 0) {
        ppg_reply *reply = NULL;
        if (ppg_call(host, "name", NULL, 0, NULL, &reply, NULL) == PPG_OK) fprintf(stderr, "host is %s\n", ppg_reply_text(reply));
        ppg_reply_free(reply);
    }
    return 0;
}

int main(int argc, char **argv) {
    static const uint32_t versions[] = {2, 3};
    ppg_peer *host;
    if (argc > 3 && strcmp(argv[3], "--one-read") == 0) return one_read(atoi(argv[1]), atoi(argv[2]));
    host = ppg_guest_new("all");
    ppg_set_metadata(host, "Description", "uses everything");
    ppg_set_interface_versions(host, versions, 2);
    ppg_guest_on_start(host, start, NULL);
    ppg_on(host, "echo", echo, NULL);
    ppg_on(host, "sleep", sleep_ms, NULL);
    ppg_on(host, "work", work, NULL);
    ppg_on(host, "back", back, NULL);
    ppg_on(host, "fails", fails, NULL);
    ppg_on(host, "nothing", nothing, NULL);
    ppg_on(host, "crash", crash, NULL);
    ppg_on(host, "exit", ends, NULL);
    ppg_on(host, "say", say, NULL);
    ppg_on(host, "bad code", bad_code, NULL);
    ppg_on(host, "config", config, NULL);
    ppg_on(host, "value", value, NULL);
    ppg_on(host, "later", later, NULL);
    ppg_on(host, "count", count, NULL);
    ppg_on(host, "add", add, NULL);
    ppg_on(host, "total", total, NULL);
    return ppg_guest_run(host, argc, argv);
}
