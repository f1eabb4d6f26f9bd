/* Tests of the host's functions against the plugin of all.c, which is the guest of this library too.
 *
 *     test PATH-OF-ALL [NAME]
 */
#include <fcntl.h>
#include <pthread.h>
#include <signal.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/stat.h>
#include <sys/types.h>
#include <sys/wait.h>
#include <time.h>
#include <unistd.h>

#include "pipeplug.h"

static const char *path, *test;
static int failed;

#define CHECK(it)                                                                    \
    do {                                                                             \
        if (!(it)) {                                                                 \
            fprintf(stderr, "test: %s: line %d: %s is wrong\n", test, __LINE__, #it); \
            failed++;                                                                \
        }                                                                            \
    } while (0)

/* Lines of a plugin's stderr, and its requests. */
struct heard {
    pthread_mutex_t lock;
    char lines[4096];
    int warnings, reports;
    char last_report[128];
};

static void on_line(const char *line, void *user) {
    struct heard *heard = user;
    pthread_mutex_lock(&heard->lock);
    if (strlen(heard->lines) + strlen(line) + 2 < sizeof heard->lines) {
        strcat(heard->lines, line);
        strcat(heard->lines, "\n");
    }
    pthread_mutex_unlock(&heard->lock);
}

static void on_warning(const char *line, void *user) {
    (void)line;
    ((struct heard *)user)->warnings++;
}

static void on_progress(uint64_t done, uint64_t total, const char *message, void *user) {
    struct heard *heard = user;
    heard->reports++;
    snprintf(heard->last_report, sizeof heard->last_report, "%lu of %lu: %s", (unsigned long)done, (unsigned long)total,
             message == NULL ? "" : message);
}

static void echo(ppg_request *request, void *user) {
    (void)user;
    ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
}

static void name(ppg_request *request, void *user) {
    ppg_answer(request, user, strlen(user));
}

static struct heard heard = {PTHREAD_MUTEX_INITIALIZER, "", 0, 0, ""};

static ppg_peer *new_plugin(void) {
    ppg_peer *plugin = ppg_plugin_new(path);
    memset(heard.lines, 0, sizeof heard.lines);
    heard.warnings = heard.reports = 0;
    ppg_on(plugin, "echo", echo, NULL);
    ppg_on(plugin, "name", name, (void *)"the test");
    ppg_plugin_on_line(plugin, on_line, &heard);
    ppg_on_warning(plugin, on_warning, &heard);
    return plugin;
}

static ppg_peer *start(ppg_peer *plugin) {
    ppg_error error;
    if (ppg_plugin_start(plugin, &error) != PPG_OK) {
        fprintf(stderr, "test: %s: %s\n", test, error.message);
        exit(1);
    }
    return plugin;
}

static void stop(ppg_peer *plugin) {
    ppg_error error;
    int status = -1;
    CHECK(ppg_plugin_stop(plugin, &status, &error) == PPG_OK);
    CHECK(status == 0);
    ppg_free(plugin);
}

/* Calls with text, and compares the reply. */
static int replies(ppg_peer *plugin, const char *command, const char *data, const char *expected) {
    ppg_reply *reply = NULL;
    ppg_error error;
    ppg_status status = ppg_call(plugin, command, data, strlen(data), NULL, &reply, &error);
    int same = status == PPG_OK && strcmp(ppg_reply_text(reply), expected) == 0;
    if (!same) fprintf(stderr, "test: %s of \"%s\": %d %s \"%s\"\n", command, data, (int)status, error.message, ppg_reply_text(reply));
    ppg_reply_free(reply);
    return same;
}

static void calls(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_reply *reply = NULL;
    ppg_error error;
    char *large = malloc(3 << 20);
    CHECK(replies(plugin, "echo", "hello", "hello"));
    CHECK(replies(plugin, "echo", "", ""));
    CHECK(replies(plugin, "later", "", "later"));
    CHECK(replies(plugin, "back", "to you", "to you"));
    memset(large, 'x', 3 << 20);
    CHECK(ppg_call(plugin, "back", large, 3 << 20, NULL, &reply, NULL) == PPG_OK);
    CHECK(ppg_reply_len(reply) == 3 << 20 && memcmp(ppg_reply_data(reply), large, 3 << 20) == 0);
    ppg_reply_free(reply);
    free(large);
    CHECK(ppg_call(plugin, "fails", NULL, 0, NULL, &reply, &error) == PPG_EPEER);
    CHECK(strcmp(ppg_reply_code(reply), "not_found") == 0 && strcmp(ppg_reply_error_data(reply), "{\"name\":\"x\"}") == 0);
    CHECK(strcmp(error.message, "there is no page \"x\"") == 0 && error.status == PPG_EPEER);
    ppg_reply_free(reply);
    CHECK(ppg_call(plugin, "nothing", NULL, 0, NULL, &reply, NULL) == PPG_EPEER);
    CHECK(strcmp(ppg_reply_code(reply), "unanswered") == 0);
    ppg_reply_free(reply);
    CHECK(ppg_call(plugin, "no such", NULL, 0, NULL, &reply, &error) == PPG_EPEER);
    CHECK(strcmp(ppg_reply_code(reply), "unknown_command") == 0 && strstr(ppg_reply_error_data(reply), "\"echo\"") != NULL);
    ppg_reply_free(reply);
    CHECK(ppg_call(plugin, "cmd.ping", NULL, 0, NULL, NULL, &error) == PPG_ERESERVED);
    CHECK(ppg_notify(plugin, "cmd.stop", NULL, 0, NULL) == PPG_ERESERVED);
    CHECK(ppg_call(plugin, "a\xff", NULL, 0, NULL, NULL, NULL) == PPG_EINVAL);
    CHECK(ppg_on(plugin, "late", echo, NULL) == PPG_EINVAL);
    CHECK(strcmp(ppg_metadata(plugin, "Description"), "uses everything") == 0 && ppg_metadata(plugin, "none") == NULL);
    CHECK(ppg_has(plugin, "stream") && ppg_has(plugin, "flow") && !ppg_has(plugin, "none"));
    stop(plugin);
    CHECK(strstr(heard.lines, "a stray line") != NULL);
}

/* Over stdin and stdout what a plugin prints goes elsewhere. */
static void other_connections(void) {
    ppg_peer *plugin = new_plugin();
    ppg_plugin_use_stdio(plugin);
    ppg_plugin_arg(plugin, "5");
    ppg_plugin_arg(plugin, "6");
    start(plugin);
    CHECK(replies(plugin, "echo", "hello", "hello"));
    stop(plugin);
    CHECK(strstr(heard.lines, "a stray line") != NULL);
    plugin = new_plugin();
    ppg_plugin_use_classic(plugin);
    start(plugin);
    CHECK(replies(plugin, "back", "hello", "hello"));
    CHECK(ppg_call(plugin, "a b", NULL, 0, NULL, NULL, NULL) == PPG_EINVAL);
    {
        char *large = malloc(500000);
        ppg_reply *reply = NULL;
        memset(large, 'y', 500000);
        CHECK(ppg_call(plugin, "back", large, 500000, NULL, &reply, NULL) == PPG_OK && ppg_reply_len(reply) == 500000);
        ppg_reply_free(reply);
        free(large);
    }
    stop(plugin);
}

static void sleep_ms(int ms) { nanosleep(&(struct timespec){ms / 1000, ms % 1000 * 1000000L}, NULL); }

static void attach(void) {
    char dir[] = "/tmp/ppg-test-XXXXXX", socket[64];
    ppg_error error;
    ppg_peer *plugin;
    int tries = 0, status;
    pid_t pid;
    CHECK(mkdtemp(dir) != NULL);
    snprintf(socket, sizeof socket, "%s/s", dir);
    pid = fork();
    if (pid == 0) {
        execl(path, path, "--pipeplug-listen", socket, (char *)NULL);
        _exit(127);
    }
    for (;;) {
        plugin = ppg_plugin_new(socket);
        ppg_plugin_attach(plugin);
        if (ppg_plugin_start(plugin, &error) == PPG_OK || ++tries == 500) break;
        ppg_free(plugin);
        sleep_ms(10);
    }
    CHECK(replies(plugin, "echo", "hello", "hello"));
    stop(plugin);
    CHECK(waitpid(pid, &status, 0) == pid && status == 0);
    CHECK(access(socket, F_OK) != 0);
    rmdir(dir);
}

static void deadlines_and_cancels(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_pending *pending = NULL;
    ppg_reply *reply = NULL;
    ppg_error error;
    options.timeout_ms = 30;
    CHECK(ppg_call(plugin, "sleep", "5000", 4, &options, NULL, &error) == PPG_ETIMEOUT);
    CHECK(strstr(error.message, "within 30 ms") != NULL);
    options.timeout_ms = -1;
    CHECK(ppg_begin(plugin, "sleep", "5000", 4, &options, &pending, NULL) == PPG_OK);
    CHECK(ppg_wait(pending, 10, NULL, NULL) == PPG_ETIMEOUT);
    ppg_cancel(pending);
    CHECK(ppg_wait(pending, -1, NULL, NULL) == PPG_ECANCELLED);
    ppg_pending_free(pending);
    options.on_progress = on_progress;
    options.user = &heard;
    CHECK(ppg_call(plugin, "sleep", "200", 3, &options, &reply, &error) == PPG_OK);
    CHECK(heard.reports >= 2 && strcmp(heard.last_report, "190 of 200: sleeping") == 0);
    ppg_reply_free(reply);
    /* A handler that blocks keeps no other from being answered. */
    CHECK(ppg_begin(plugin, "work", "300", 3, NULL, &pending, NULL) == PPG_OK);
    options.timeout_ms = 250;
    CHECK(ppg_call(plugin, "echo", "x", 1, &options, NULL, &error) == PPG_OK);
    CHECK(ppg_wait(pending, 5000, NULL, NULL) == PPG_OK);
    ppg_pending_free(pending);
    stop(plugin);
}

/* What comes after the deadline is dropped, although it came before the call was looked at. */
static void late_replies(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_pending *pending = NULL;
    ppg_reply *reply = NULL;
    ppg_error error;
    const void *data;
    size_t len;
    options.timeout_ms = 50;
    CHECK(ppg_begin(plugin, "work", "100", 3, &options, &pending, NULL) == PPG_OK);
    sleep_ms(300);
    CHECK(ppg_wait(pending, -1, &reply, &error) == PPG_ETIMEOUT && reply == NULL);
    CHECK(strstr(error.message, "within 50 ms") != NULL);
    ppg_pending_free(pending);
    /* So is an error, and the end of the plugin. */
    CHECK(ppg_begin(plugin, "work", "100 fail", 8, &options, &pending, NULL) == PPG_OK);
    sleep_ms(300);
    CHECK(ppg_wait(pending, -1, &reply, NULL) == PPG_ETIMEOUT && reply == NULL);
    ppg_pending_free(pending);
    /* Parts wait no longer than their call. */
    options.receive_parts = 1;
    CHECK(ppg_begin(plugin, "work", "2000", 4, &options, &pending, NULL) == PPG_OK);
    CHECK(ppg_next_part(ppg_pending_stream(pending), &data, &len, &error) == PPG_ETIMEOUT);
    CHECK(ppg_wait(pending, 0, NULL, NULL) == PPG_ETIMEOUT);
    ppg_pending_free(pending);
    options.receive_parts = 0;
    options.send_parts = 1;
    CHECK(ppg_begin(plugin, "work", "2000", 4, &options, &pending, NULL) == PPG_OK);
    while (ppg_send_part(ppg_pending_stream(pending), error.message, sizeof error.message, &error) == PPG_OK) continue;
    CHECK(error.status == PPG_ETIMEOUT);
    ppg_pending_free(pending);
    options.send_parts = 0;
    CHECK(ppg_begin(plugin, "work", "2000", 4, &options, &pending, NULL) == PPG_OK);
    sleep_ms(100);
    ppg_plugin_kill(plugin);
    CHECK(ppg_plugin_wait(plugin, 5000) == PPG_OK);
    CHECK(ppg_wait(pending, -1, NULL, NULL) == PPG_ETIMEOUT);
    ppg_pending_free(pending);
    ppg_free(plugin);
}

/* Commands of the errors of handlers. */
static void errors_of_handlers(void) {
    ppg_peer *plugin = start(new_plugin());
    char digit[2] = "0", line[16];
    for (; *digit < '5'; ++*digit) {
        ppg_reply *reply = NULL;
        CHECK(ppg_call(plugin, "bad code", digit, 1, NULL, &reply, NULL) == PPG_EPEER);
        CHECK(strcmp(ppg_reply_code(reply), *digit == '3' ? "good_code" : "") == 0);
        CHECK(strcmp(ppg_reply_text(reply), *digit == '4' ? "no message" : "the message") == 0);
        ppg_reply_free(reply);
    }
    stop(plugin);
    for (*digit = '0'; *digit < '5'; ++*digit) {
        snprintf(line, sizeof line, "refused %s", digit);
        CHECK(strstr(heard.lines, line) != NULL);
    }
    CHECK(strstr(heard.lines, "left out the code of an error of \"bad code\"") != NULL);
    CHECK(strstr(heard.lines, "left out the data of an error of \"bad code\"") != NULL);
}

/* A reader that takes a buffer with one read, as the original Go package does, gets it whole if a pipe holds it. */
static void one_read(void) {
    static const size_t sizes[] = {1, 4096, 60000, 65536, 500000, (1 << 20) - 10, 1 << 20};
    ppg_peer *plugin = new_plugin();
    ppg_reply *reply = NULL;
    char *data = calloc(1, (1 << 20) + 1), expected[32];
    size_t i;
    ppg_plugin_use_classic(plugin);
    ppg_plugin_arg(plugin, "--one-read");
    start(plugin);
    for (i = 0; i < sizeof sizes / sizeof *sizes; i++) {
        snprintf(expected, sizeof expected, "%lu", (unsigned long)sizes[i]);
        CHECK(ppg_call(plugin, "count", data, sizes[i], NULL, &reply, NULL) == PPG_OK);
        if (strcmp(ppg_reply_text(reply), expected) != 0) fprintf(stderr, "test: %s of %s\n", ppg_reply_text(reply), expected);
        CHECK(strcmp(ppg_reply_text(reply), expected) == 0);
        ppg_reply_free(reply);
    }
    CHECK(heard.warnings == 0);
    CHECK(ppg_notify(plugin, "count", data, (1 << 20) + 1, NULL) == PPG_OK && heard.warnings == 1);
    ppg_plugin_kill(plugin);
    ppg_free(plugin);
    free(data);
}

static void values(void) {
    static const char *const pairs[] = {"traceparent", "00-1", "user", "a\"b", NULL};
    ppg_peer *plugin = start(new_plugin());
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_reply *reply = NULL;
    options.values = pairs;
    CHECK(ppg_call(plugin, "value", "user", 4, &options, &reply, NULL) == PPG_OK && strcmp(ppg_reply_text(reply), "a\"b") == 0);
    ppg_reply_free(reply);
    stop(plugin);
}

static void streams(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_pending *pending = NULL;
    ppg_stream *stream;
    ppg_reply *reply = NULL;
    ppg_error error;
    const void *data;
    size_t len;
    int i;
    options.send_parts = options.receive_parts = 1;
    CHECK(ppg_begin(plugin, "echo", "end", 3, &options, &pending, &error) == PPG_OK);
    stream = ppg_pending_stream(pending);
    for (i = 0; i < 3000; i++) {
        char part[1000];
        memset(part, 'a' + i % 26, sizeof part);
        CHECK(ppg_send_part(stream, part, (size_t)(i % 1000), &error) == PPG_OK);
        CHECK(ppg_next_part(stream, &data, &len, &error) == PPG_OK && len == (size_t)(i % 1000));
        CHECK(memcmp(data, part, len) == 0);
    }
    CHECK(ppg_end_parts(stream, NULL) == PPG_OK && ppg_end_parts(stream, NULL) == PPG_EINVAL);
    CHECK(ppg_next_part(stream, &data, &len, NULL) == PPG_END);
    CHECK(ppg_wait(pending, 5000, &reply, NULL) == PPG_OK && strcmp(ppg_reply_text(reply), "end") == 0);
    ppg_reply_free(reply);
    ppg_pending_free(pending);

    /* 100,000 parts, which are more than a window. */
    options.send_parts = 0;
    CHECK(ppg_begin(plugin, "count", "100000", 6, &options, &pending, NULL) == PPG_OK);
    stream = ppg_pending_stream(pending);
    for (i = 0; ppg_next_part(stream, &data, &len, NULL) == PPG_OK; i++) CHECK(atoi(data) == i);
    CHECK(i == 100000);
    CHECK(ppg_wait(pending, 5000, NULL, NULL) == PPG_OK);
    ppg_pending_free(pending);

    /* Enough. */
    CHECK(ppg_begin(plugin, "count", "100000000", 9, &options, &pending, NULL) == PPG_OK);
    stream = ppg_pending_stream(pending);
    CHECK(ppg_next_part(stream, &data, &len, NULL) == PPG_OK && ppg_enough(stream, "one will do") == PPG_OK);
    CHECK(ppg_wait(pending, 5000, &reply, NULL) == PPG_OK && strcmp(ppg_reply_text(reply), "counted") == 0);
    ppg_reply_free(reply);
    ppg_pending_free(pending);

    /* Given up, aborted, and ignored. */
    CHECK(ppg_begin(plugin, "count", "100000000", 9, &options, &pending, NULL) == PPG_OK);
    CHECK(ppg_next_part(ppg_pending_stream(pending), &data, &len, NULL) == PPG_OK);
    ppg_pending_free(pending);
    options.send_parts = 1;
    CHECK(ppg_begin(plugin, "echo", "", 0, &options, &pending, NULL) == PPG_OK);
    CHECK(ppg_abort_parts(ppg_pending_stream(pending), "changed my mind") == PPG_OK);
    CHECK(ppg_wait(pending, 5000, NULL, &error) == PPG_EPEER && strstr(error.message, "changed my mind") != NULL);
    ppg_pending_free(pending);
    CHECK(ppg_begin(plugin, "value", "x", 1, &options, &pending, NULL) == PPG_OK);
    CHECK(ppg_wait(pending, 5000, NULL, NULL) == PPG_OK);
    CHECK(ppg_send_part(ppg_pending_stream(pending), "x", 1, &error) == PPG_EENOUGH);
    CHECK(strstr(error.message, "the handler takes no parts") != NULL);
    ppg_pending_free(pending);

    /* A one-way. */
    options.receive_parts = 0;
    options.one_way = 1;
    CHECK(ppg_begin(plugin, "add", "12345", 5, &options, &pending, NULL) == PPG_OK);
    for (i = 0; i < 1000; i++) CHECK(ppg_send_part(ppg_pending_stream(pending), "12345", 5, NULL) == PPG_OK);
    CHECK(ppg_end_parts(ppg_pending_stream(pending), NULL) == PPG_OK);
    ppg_pending_free(pending);
    for (i = 0; i < 5000 && !failed; i++) {
        CHECK(ppg_call(plugin, "total", NULL, 0, NULL, &reply, NULL) == PPG_OK);
        if (strcmp(ppg_reply_text(reply), "5005") == 0) i = 5000;
        ppg_reply_free(reply);
    }
    CHECK(i == 5001);
    stop(plugin);
}

/* More one-ways than the plugin's window holds: none is lost, and the sender waits. */
static void flow(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_error error;
    ppg_reply *reply = NULL;
    char *data = calloc(1, 4096), expected[32];
    int i, tries = 0;
    for (i = 0; i < 5000; i++) CHECK(ppg_notify(plugin, "add", data, 4096, &error) == PPG_OK);
    snprintf(expected, sizeof expected, "%d", 5000 * 4096);
    do {
        ppg_reply_free(reply);
        CHECK(ppg_call(plugin, "total", NULL, 0, NULL, &reply, NULL) == PPG_OK);
    } while (strcmp(ppg_reply_text(reply), expected) != 0 && ++tries < 10000);
    CHECK(tries < 10000);
    ppg_reply_free(reply);
    free(data);
    stop(plugin);
}

static void settings(void) {
    static const uint32_t one[] = {1, 2}, none[] = {7};
    ppg_peer *plugin = new_plugin();
    ppg_error error;
    CHECK(ppg_plugin_config(plugin, "{") == PPG_EINVAL && ppg_plugin_config(plugin, "{\"port\":80}") == PPG_OK);
    ppg_set_interface_versions(plugin, one, 2);
    ppg_plugin_log_level(plugin, PPG_LOG_DEBUG);
    ppg_plugin_arg(plugin, "--ask");
    start(plugin);
    CHECK(replies(plugin, "config", "", "{\"port\":80}"));
    CHECK(ppg_interface_version(plugin) == 2);
    ppg_plugin_log_level(plugin, PPG_LOG_WARN);
    CHECK(replies(plugin, "echo", "x", "x"));
    stop(plugin);
    CHECK(strstr(heard.lines, "host is the test") != NULL);

    plugin = new_plugin();
    ppg_set_interface_versions(plugin, none, 1);
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART && strstr(error.message, "it speaks 2 3") != NULL);
    ppg_free(plugin);
}

static char folder[] = "/tmp/ppg-test-XXXXXX";

static const char *in_folder(const char *name) {
    static char at[256];
    snprintf(at, sizeof at, "%s/%s", folder, name);
    return at;
}

static void write_file(const char *name, const void *bytes, size_t len, mode_t mode) {
    int fd = open(in_folder(name), O_WRONLY | O_CREAT | O_TRUNC | O_CLOEXEC, 0600);
    CHECK(fd >= 0 && write(fd, bytes, len) == (ssize_t)len && fchmod(fd, mode) == 0 && close(fd) == 0);
}

static void script(const char *name, const char *text) { write_file(name, text, strlen(text), 0755); }

/* The error of a start that fails. */
static void fails_to_start(const char *name, const char *expected) {
    ppg_error error;
    ppg_peer *plugin = ppg_plugin_new(in_folder(name));
    ppg_plugin_on_line(plugin, on_line, &heard);
    ppg_plugin_set_start_timeout(plugin, 500);
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART);
    if (strstr(error.message, expected) == NULL || strstr(error.message, name) == NULL) {
        fprintf(stderr, "test: %s: \"%s\" is to name %s and say \"%s\"\n", test, error.message, name, expected);
        failed++;
    }
    ppg_free(plugin);
}

static void start_errors(void) {
    static const unsigned char other[64] = {0x7f, 'E', 'L', 'F', 2, 2, 1, [18] = 0, [19] = 22};
    ppg_peer *nothing;
    ppg_error error;
    CHECK(mkdtemp(folder) != NULL);
    fails_to_start("none", "no such file; check the path, PATH is not searched");
    CHECK(symlink("/no/such", in_folder("link")) == 0);
    fails_to_start("link", "it is a symbolic link to \"/no/such\"");
    script("no-mode", "#!/bin/sh\n");
    CHECK(chmod(in_folder("no-mode"), 0644) == 0);
    fails_to_start("no-mode", "is not executable (mode 0644): run `chmod +x` on it");
    fails_to_start("no-mode/plugin", "no-mode\" is not a directory");
    CHECK(mkdir(in_folder("folder"), 0700) == 0);
    fails_to_start("folder", "is a directory: name the executable file inside it");
    CHECK(mkfifo(in_folder("fifo"), 0700) == 0);
    fails_to_start("fifo", "is a FIFO, a socket or a device");
    script("no-line", "echo\n");
    fails_to_start("no-line", "it has neither a `#!` line nor an ELF header");
    script("empty", "");
    fails_to_start("empty", "it is empty");
    script("no-interpreter", "#!/no/such/sh -e\n");
    fails_to_start("no-interpreter", "needs the interpreter \"/no/such/sh\", which does not exist: install it");
    script("crlf", "#!/bin/sh\r\n");
    fails_to_start("crlf", "its first line ends in CR LF");
    script("crlf-env", "#!/usr/bin/env python3\r\n");
    fails_to_start("crlf-env", "; its `#!` line ends with a carriage return, which is taken for a part of its last word: save the file with Unix");
    script("crlf-option", "#!/bin/sh -e\r\n");
    fails_to_start("crlf-option", "line ends with a carriage return");
    script("through-file", "#!/etc/passwd/sh\n");
    fails_to_start("through-file", "needs the interpreter \"/etc/passwd/sh\", which does not exist");
    script("closed", "#!/etc/passwd\n");
    fails_to_start("closed", "needs the interpreter \"/etc/passwd\", which is no file that this user may execute");
    script("folder-as-interpreter", "#!/etc\n");
    fails_to_start("folder-as-interpreter", "needs the interpreter \"/etc\", which is no file that this user may execute");
    nothing = ppg_plugin_new("");
    CHECK(ppg_plugin_start(nothing, &error) == PPG_ESTART && strcmp(error.message, "no plugin was started: its path is empty, name its file") == 0);
    ppg_free(nothing);
    write_file("machine", other, sizeof other, 0755);
    fails_to_start("machine", "is built for another machine (s390, 64 bits, big-endian), this one is ");
    script("exits", "#!/bin/sh\necho one >&2\necho two >&2\nexit 3\n");
    fails_to_start("exits", "ended before it answered: exit status 3, last on its stderr: one\ntwo; it may be no plugin");
    script("killed", "#!/bin/sh\nkill -9 $$\n");
    fails_to_start("killed", "ended before it answered: killed by signal 9 (SIGKILL), nothing on its stderr");
    script("closes", "#!/bin/sh\nexec sleep 5 3<&- 4>&-\n");
    fails_to_start("closes", "closed the connection before it answered, and ran on");
    script("prints", "#!/bin/sh\necho hello >&4\nexec sleep 5\n");
    fails_to_start("prints", "sent what is no chunk: broken chunk at byte 0");
    script("slow", "#!/bin/sh\necho waits >&2\nexec sleep 5\n");
    fails_to_start("slow", "did not answer within 500 ms; a slow one needs more time: ppg_plugin_set_start_timeout; if it speaks the classic format");
    /* More than an error holds: the last lines of it. */
    script("talks", "#!/bin/sh\nfor i in 1 2 3 4 5 6 7 8 9; do printf '%0300d\\n' $i >&2; done\nexit 1\n");
    fails_to_start("talks", "0008\n");
    fails_to_start("talks", "0009; it may be no plugin");
    CHECK(snprintf(heard.lines, sizeof heard.lines, "rm -rf %s", folder) > 0 && system(heard.lines) == 0);
}

static void *close_soon(void *fd) {
    sleep_ms(60);
    close(*(int *)fd);
    return NULL;
}

/* A file that is still open for writing, as it is in a process that another thread has forked meanwhile. */
static void busy_file(void) {
    char name[] = "/tmp/ppg-test-XXXXXX", command[512];
    pthread_t thread;
    ppg_error error;
    ppg_peer *plugin;
    int fd = mkstemp(name);
    snprintf(command, sizeof command, "cp '%s' '%s' && chmod 755 '%s'", path, name, name);
    CHECK(fd >= 0 && system(command) == 0);
    plugin = ppg_plugin_new(name);
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART && strstr(error.message, "is open for writing") != NULL);
    ppg_free(plugin);
    CHECK(pthread_create(&thread, NULL, close_soon, &fd) == 0);
    plugin = ppg_plugin_new(name);
    ppg_plugin_on_line(plugin, on_line, &heard);
    ppg_set_interface_versions(plugin, NULL, 0);
    stop(start(plugin));
    pthread_join(thread, NULL);
    unlink(name);
}

/* How the plugin has ended, in the error of what it ended. */
static void kills(void) {
    ppg_peer *plugin = start(new_plugin());
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_pending *pending = NULL;
    ppg_error error;
    const void *data;
    size_t len;
    int status;
    options.receive_parts = 1;
    CHECK(replies(plugin, "say", "last words", ""));
    CHECK(ppg_begin(plugin, "sleep", "5000", 4, &options, &pending, NULL) == PPG_OK);
    CHECK(kill((pid_t)ppg_plugin_pid(plugin), SIGKILL) == 0);
    CHECK(ppg_next_part(ppg_pending_stream(pending), &data, &len, &error) == PPG_ECLOSED);
    CHECK(strstr(error.message, path) != NULL && strstr(error.message, "killed by signal 9 (SIGKILL)") != NULL);
    CHECK(ppg_wait(pending, -1, NULL, &error) == PPG_ECLOSED);
    CHECK(strstr(error.message, path) != NULL && strstr(error.message, "killed by signal 9 (SIGKILL)") != NULL);
    CHECK(strstr(error.message, "last on its stderr: last words") != NULL);
    ppg_pending_free(pending);
    CHECK(ppg_call(plugin, "echo", NULL, 0, NULL, NULL, &error) == PPG_ECLOSED);
    CHECK(strstr(error.message, path) != NULL && strstr(error.message, "killed by signal 9 (SIGKILL)") != NULL);
    CHECK(ppg_plugin_pid(plugin) == 0);
    CHECK(ppg_plugin_stop(plugin, &status, &error) == PPG_ECLOSED && strstr(error.message, "SIGKILL") != NULL);
    CHECK(WIFSIGNALED(status) && WTERMSIG(status) == SIGKILL);
    ppg_free(plugin);
    plugin = start(new_plugin());
    CHECK(ppg_call(plugin, "exit", "7", 1, NULL, NULL, &error) == PPG_ECLOSED);
    CHECK(strstr(error.message, "has ended: exit status 7") != NULL);
    ppg_free(plugin);
    plugin = start(new_plugin());
    CHECK(ppg_plugin_stop(plugin, NULL, NULL) == PPG_OK);
    CHECK(ppg_call(plugin, "echo", NULL, 0, NULL, NULL, &error) == PPG_ECLOSED && strstr(error.message, "was stopped") != NULL);
    ppg_free(plugin);
}

static void ends(void) {
    ppg_peer *plugin = new_plugin();
    ppg_pending *pending = NULL;
    ppg_error error;
    int status = 0;
    ppg_plugin_arg(plugin, "--fail");
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART && strstr(error.message, "no license") != NULL);
    ppg_free(plugin);
    plugin = ppg_plugin_new("/no/such/plugin");
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART && strstr(error.message, "/no/such/plugin") != NULL);
    ppg_free(plugin);
    plugin = ppg_plugin_new("/bin/sleep");
    ppg_plugin_arg(plugin, "5");
    ppg_plugin_use_stdio(plugin);
    ppg_plugin_set_start_timeout(plugin, 300);
    CHECK(ppg_plugin_start(plugin, &error) == PPG_ESTART);
    ppg_free(plugin);

    plugin = start(new_plugin());
    CHECK(ppg_call(plugin, "crash", NULL, 0, NULL, NULL, &error) == PPG_ECLOSED);
    CHECK(ppg_call(plugin, "echo", NULL, 0, NULL, NULL, &error) == PPG_ECLOSED);
    CHECK(ppg_plugin_wait(plugin, 1000) == PPG_OK);
    CHECK(ppg_plugin_stop(plugin, &status, NULL) == PPG_ECLOSED && WIFSIGNALED(status) && WTERMSIG(status) == SIGABRT);
    CHECK(strstr(heard.lines, "about to crash") != NULL);
    ppg_free(plugin);

    plugin = start(new_plugin());
    CHECK(ppg_begin(plugin, "sleep", "5000", 4, NULL, &pending, NULL) == PPG_OK);
    CHECK(ppg_plugin_pid(plugin) > 0 && kill((pid_t)ppg_plugin_pid(plugin), SIGTERM) == 0);
    CHECK(ppg_wait(pending, 5000, NULL, &error) == PPG_ECLOSED);
    ppg_pending_free(pending);
    CHECK(ppg_plugin_stop(plugin, &status, NULL) == PPG_ECLOSED && WIFSIGNALED(status) && WTERMSIG(status) == SIGTERM);
    ppg_free(plugin);

    /* What it works on is answered before it ends. */
    plugin = start(new_plugin());
    CHECK(ppg_begin(plugin, "sleep", "300", 3, NULL, &pending, NULL) == PPG_OK);
    CHECK(ppg_plugin_stop(plugin, &status, &error) == PPG_OK && status == 0);
    CHECK(ppg_wait(pending, 0, NULL, NULL) == PPG_OK);
    ppg_pending_free(pending);
    ppg_free(plugin);
    /* Freed without a stop. */
    ppg_free(start(new_plugin()));
    ppg_free(new_plugin());
}

/* Host and plugin call each other from many threads. */
static void *caller(void *of) {
    int i;
    for (i = 0; i < 200; i++) CHECK(replies(of, i % 2 ? "back" : "echo", "both ways", "both ways"));
    return NULL;
}

static void threads(void) {
    ppg_peer *plugin = start(new_plugin());
    pthread_t ids[8];
    int i;
    for (i = 0; i < 8; i++) CHECK(pthread_create(&ids[i], NULL, caller, plugin) == 0);
    for (i = 0; i < 8; i++) pthread_join(ids[i], NULL);
    stop(plugin);
}

int main(int argc, char **argv) {
    static const struct {
        const char *name;
        void (*run)(void);
    } tests[] = {
        {"calls", calls},   {"other_connections", other_connections}, {"attach", attach},     {"deadlines_and_cancels", deadlines_and_cancels},
        {"values", values}, {"streams", streams},                     {"flow", flow},         {"settings", settings},
        {"ends", ends},     {"threads", threads},                     {"kills", kills},       {"late_replies", late_replies},
        {"start_errors", start_errors}, {"busy_file", busy_file},     {"one_read", one_read}, {"errors_of_handlers", errors_of_handlers},
    };
    size_t i;
    int run = 0;
    if (argc < 2) {
        fputs("usage: test PATH-OF-ALL [NAME]\n", stderr);
        return 2;
    }
    path = argv[1];
    for (i = 0; i < sizeof tests / sizeof *tests; i++) {
        if (argc > 2 && strcmp(argv[2], tests[i].name) != 0) continue;
        test = tests[i].name;
        tests[i].run();
        run++;
    }
    printf("test: %d tests, %d failures\n", run, failed);
    return failed > 0 || run == 0;
}
