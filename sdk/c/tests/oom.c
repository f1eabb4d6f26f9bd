/* A conversation in which each allocation fails once, those of the host first and then those of the plugin: nothing
 * crashes, leaks or hangs, and what failed says so.
 *
 *     oom     it starts itself as the plugin
 */
#define _GNU_SOURCE
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

static pthread_mutex_t lock = PTHREAD_MUTEX_INITIALIZER;
static long allocations, fail_at = -1, live;

/* Counts an allocation. Returns 0 for the one that is to fail. */
static int may_allocate(int is_new) {
    int may;
    pthread_mutex_lock(&lock);
    may = allocations++ != fail_at;
    live += may && is_new;
    pthread_mutex_unlock(&lock);
    return may;
}

static void *test_malloc(size_t size) { return may_allocate(1) ? malloc(size) : NULL; }
static void *test_calloc(size_t count, size_t size) { return may_allocate(1) ? calloc(count, size) : NULL; }
static void *test_realloc(void *at, size_t size) { return may_allocate(at == NULL) ? realloc(at, size) : NULL; }

static void test_free(void *at) {
    pthread_mutex_lock(&lock);
    live -= at != NULL;
    pthread_mutex_unlock(&lock);
    free(at);
}

#define malloc test_malloc
#define calloc test_calloc
#define realloc test_realloc
#define free test_free
#include "../pipeplug.c"

enum { LEAKED = 99, TIME = 5000 };
static const char *step;
static int wrong;

static void complain(const char *who, const char *what) {
    fprintf(stderr, "oom: allocation %ld of the %s: %s: %s\n", fail_at, who, step, what);
    wrong++;
}

/* ---- The plugin ---- */

static void echo(ppg_request *request, void *user) {
    ppg_stream *stream = ppg_request_stream(request);
    const void *data;
    size_t len;
    ppg_error error;
    ppg_status status = PPG_OK;
    (void)user;
    ppg_progress(request, 1, 2, "half");
    while (stream != NULL && status == PPG_OK)
        if ((status = ppg_next_part(stream, &data, &len, &error)) == PPG_OK) status = ppg_send_part(stream, data, len, &error);
    if (status != PPG_OK && status != PPG_END)
        ppg_fail(request, NULL, error.message, NULL);
    else
        ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
}

static void fails(ppg_request *request, void *user) {
    (void)user;
    ppg_fail(request, "code", "message", "[1]");
}

static int plugin_main(int argc, char **argv) {
    const char *at = getenv("FAIL_AT");
    ppg_peer *host;
    int code;
    if (at != NULL) fail_at = strtol(at, NULL, 10);
    host = ppg_guest_new("oom");
    if (host == NULL || ppg_on(host, "echo", echo, NULL) != PPG_OK || ppg_on(host, "fails", fails, NULL) != PPG_OK ||
        ppg_set_metadata(host, "a", "b") != PPG_OK || ppg_add_service(host, "x", 1, 1, "{}") != PPG_OK) {
        fprintf(stderr, "no memory\n");
        ppg_free(host);
        code = 1;
    } else {
        code = ppg_guest_run(host, argc, argv);
    }
    if (live != 0) {
        fprintf(stderr, "%ld allocations are left\n", live);
        return LEAKED;
    }
    return code;
}

/* ---- The host ---- */

static void on_line(const char *line, void *user) {
    (void)user;
    if (strstr(line, "are left") != NULL || strstr(line, "ERROR") != NULL) fprintf(stderr, "oom: plugin: %s\n", line);
}

static void on_progress(uint64_t done, uint64_t total, const char *message, void *user) {
    (void)done;
    (void)total;
    (void)message;
    (void)user;
}

/* The reply of a call with parts may come before they do, and is an error then. */
static ppg_status stream(ppg_peer *plugin, ppg_error *error) {
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_pending *pending = NULL;
    const void *data;
    size_t len;
    ppg_status status;
    options.timeout_ms = TIME;
    options.send_parts = options.receive_parts = 1;
    status = ppg_begin(plugin, "echo", NULL, 0, &options, &pending, error);
    if (status == PPG_OK) status = ppg_send_part(ppg_pending_stream(pending), "part", 4, error);
    if (status == PPG_OK) status = ppg_next_part(ppg_pending_stream(pending), &data, &len, error);
    if (status == PPG_END) complain("plugin", "a part is missing");
    if (status == PPG_OK) status = ppg_end_parts(ppg_pending_stream(pending), error);
    if (status == PPG_OK) status = ppg_wait(pending, -1, NULL, error);
    ppg_pending_free(pending);
    return status;
}

/* Returns 1 if all went as it does with memory enough. */
static int talk(const char *path, const char *who, const char *plugin_fails_at) {
    static const char *const values[] = {"name", "value", NULL};
    static const uint32_t versions[] = {1};
    ppg_call_options options = PPG_CALL_OPTIONS_INIT;
    ppg_reply *reply = NULL;
    ppg_error error = {PPG_OK, ""};
    int64_t began = now_ns();
    ppg_status status;
    int exit_status = 0, good = 0;
    ppg_peer *plugin = ppg_plugin_new(path);
    char *large = calloc(1, 3 << 20);
    step = "settings";
    status = plugin == NULL || large == NULL ? PPG_ENOMEM : ppg_on(plugin, "x", echo, NULL);
    if (status == PPG_OK) status = ppg_set_metadata(plugin, "a", "b");
    if (status == PPG_OK) status = ppg_plugin_arg(plugin, "arg");
    if (status == PPG_OK && plugin_fails_at != NULL) status = ppg_plugin_env(plugin, "FAIL_AT", plugin_fails_at);
    if (status == PPG_OK) status = ppg_plugin_config(plugin, "{}");
    if (status == PPG_OK) status = ppg_set_interface_versions(plugin, versions, 1);
    if (status == PPG_OK) status = ppg_add_service(plugin, "s", 1, 1, "{}");
    if (status == PPG_OK) status = ppg_plugin_on_line(plugin, on_line, NULL);
    if (status == PPG_OK) status = ppg_plugin_set_start_timeout(plugin, TIME);
    if (status != PPG_OK) goto out;
    step = "start";
    if ((status = ppg_plugin_start(plugin, &error)) != PPG_OK) goto out;
    step = "call";
    options.timeout_ms = TIME;
    options.values = values;
    options.on_progress = on_progress;
    status = ppg_call(plugin, "echo", "hello", 5, &options, &reply, &error);
    if (status == PPG_OK && strcmp(ppg_reply_text(reply), "hello") != 0) complain(who, "another reply");
    ppg_reply_free(reply);
    if (status != PPG_OK) goto out;
    step = "error";
    status = ppg_call(plugin, "fails", NULL, 0, &options, &reply, &error);
    if (status == PPG_EPEER && strstr(error.message, "message") == NULL && strstr(error.message, "memory") == NULL)
        complain(who, "the error is lost");
    if (status == PPG_EPEER) status = *ppg_reply_error_data(reply) != '\0' ? PPG_OK : PPG_ENOMEM;
    ppg_reply_free(reply);
    if (status != PPG_OK) goto out;
    step = "large call";
    status = ppg_call(plugin, "echo", large, 3 << 20, &options, &reply, &error);
    if (status == PPG_OK && ppg_reply_len(reply) != 3 << 20) complain(who, "another length");
    ppg_reply_free(reply);
    if (status != PPG_OK) goto out;
    step = "stream";
    if ((status = stream(plugin, &error)) != PPG_OK) goto out;
    step = "stop";
    status = ppg_plugin_stop(plugin, &exit_status, &error);
    good = status == PPG_OK && exit_status == 0;
out:
    if (status == PPG_ETIMEOUT) complain(who, "nothing comes");
    if (status != PPG_OK && status != PPG_ENOMEM && *error.message == '\0') complain(who, "the error says nothing");
    /* A host that has no memory does not read on, and its plugin may wait for it: it need not be waited for. */
    if (plugin_fails_at == NULL && !good) ppg_plugin_kill(plugin);
    if (plugin != NULL && strcmp(step, "settings") != 0 && strcmp(step, "start") != 0 && strcmp(step, "stop") != 0)
        ppg_plugin_stop(plugin, &exit_status, NULL);
    ppg_free(plugin);
    free(large);
    if (WIFSIGNALED(exit_status) && WTERMSIG(exit_status) != SIGTERM && WTERMSIG(exit_status) != SIGKILL) complain(who, "the plugin crashed");
    if (getenv("VERBOSE") != NULL)
        fprintf(stderr, "oom: %s %s: %s, %s, %ld ms, %x\n", who, plugin_fails_at != NULL ? plugin_fails_at : "", step, error.message, (long)((now_ns() - began) / 1000000), (unsigned)exit_status);
    if (WIFEXITED(exit_status) && WEXITSTATUS(exit_status) == LEAKED) complain(who, "the plugin leaked");
    return good;
}

int main(int argc, char **argv) {
    char number[24];
    long of_host, of_plugin;
    if (argc > 1) return plugin_main(argc, argv);
    for (of_host = 0; wrong == 0; of_host++) {
        int good;
        allocations = 0;
        fail_at = of_host;
        good = talk(argv[0], "host", NULL);
        if (live != 0) complain("host", "it leaked");
        if (allocations <= fail_at) {
            if (!good) complain("host", "it fails with memory enough");
            break;
        }
    }
    allocations = 0;
    fail_at = -1;
    /* The plugin does not tell how many it makes: three calls that go well in a row are the end. */
    for (of_plugin = 0, allocations = 0; wrong == 0; of_plugin++) {
        static int good;
        snprintf(number, sizeof number, "%ld", of_plugin);
        fail_at = -1;
        good = talk(argv[0], "plugin", number) ? good + 1 : 0;
        if (live != 0) complain("host", "it leaked");
        if (good == 12) break;
    }
    printf("oom: %ld allocations of a host and %ld of a plugin failed, %d failures\n", of_host, of_plugin, wrong);
    return wrong > 0 || of_host < 20 || of_plugin < 20;
}
