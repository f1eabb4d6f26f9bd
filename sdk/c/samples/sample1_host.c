/* The host: makes 5,000 calls at once while its plugin makes 5,000 back.
 *
 *     sample1-host PLUGIN
 */
#include <pthread.h>
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeplug.h"

static const char DOCKER_HOST[] = "unix:///var/run/docker.sock";
/* The main thread makes what the others leave. */
enum { CALLS = 5000, THREADS = 8, CALLS_OF_A_THREAD = 125, TIME_LIMIT_MS = 50000 };

struct done {
    pthread_mutex_t lock;
    pthread_cond_t changed;
    int replies;
};

/* Calls of one thread. */
struct range {
    ppg_peer *plugin;
    int first, last, failed;
};

static void docker_host(ppg_request *request, void *user) {
    (void)user;
    ppg_answer(request, DOCKER_HOST, strlen(DOCKER_HOST));
}

static void repeat(ppg_request *request, void *user) {
    size_t len = ppg_request_len(request);
    char *twice = malloc(2 * len + 1);
    (void)user;
    if (twice == NULL) {
        ppg_fail(request, NULL, "no memory", NULL);
        return;
    }
    memcpy(twice, ppg_request_data(request), len);
    memcpy(twice + len, ppg_request_data(request), len);
    ppg_answer(request, twice, 2 * len);
    free(twice);
}

/* A one-way has no reply, so this signals the end. */
static void done(ppg_request *request, void *user) {
    struct done *it = user;
    pthread_mutex_lock(&it->lock);
    it->replies = atoi(ppg_request_data(request));
    pthread_cond_signal(&it->changed);
    pthread_mutex_unlock(&it->lock);
}

/* Begins all calls before it waits for the first, so that they are all in flight together. */
static void *echo(void *of) {
    struct range *range = of;
    ppg_pending *pending[CALLS] = {NULL};
    char text[32];
    ppg_error error;
    int i;
    for (i = range->first; i < range->last; i++) {
        int len = snprintf(text, sizeof text, "echo %d", i);
        if (ppg_begin(range->plugin, "Echo", text, (size_t)len, NULL, &pending[i], &error) != PPG_OK) break;
    }
    range->failed = i < range->last;
    while (i-- > range->first) {
        ppg_reply *reply = NULL;
        snprintf(text, sizeof text, "echo %d", i);
        if (ppg_wait(pending[i], TIME_LIMIT_MS, &reply, &error) != PPG_OK || strcmp(ppg_reply_text(reply), text) != 0)
            range->failed = 1;
        ppg_reply_free(reply);
        ppg_pending_free(pending[i]);
    }
    if (range->failed) fprintf(stderr, "sample1-host: %s\n", error.message);
    return NULL;
}

int main(int argc, char **argv) {
    struct done said = {PTHREAD_MUTEX_INITIALIZER, PTHREAD_COND_INITIALIZER, -1};
    struct range ranges[THREADS + 1];
    pthread_t threads[THREADS];
    ppg_peer *plugin = argc > 1 ? ppg_plugin_new(argv[1]) : NULL;
    ppg_pending *started = NULL;
    ppg_reply *reply = NULL;
    ppg_error error;
    int i, status, failed = 0;
    if (plugin == NULL) {
        fputs("usage: sample1-host PLUGIN\n", stderr);
        return 2;
    }
    ppg_on(plugin, "GetDockerHost", docker_host, NULL);
    ppg_on(plugin, "Repeat", repeat, NULL);
    ppg_on(plugin, "Done", done, &said);
    if (ppg_plugin_start(plugin, &error) != PPG_OK ||
        /* From here on the plugin calls back, and is answered while this side makes its own calls. */
        ppg_begin(plugin, "Start", "5000", 4, NULL, &started, &error) != PPG_OK) {
        fprintf(stderr, "sample1-host: %s\n", error.message);
        ppg_free(plugin);
        return 1;
    }
    for (i = 0; i <= THREADS; i++) {
        ranges[i].plugin = plugin;
        ranges[i].first = i * CALLS_OF_A_THREAD;
        ranges[i].last = i < THREADS ? ranges[i].first + CALLS_OF_A_THREAD : CALLS;
        ranges[i].failed = 0;
        if (i < THREADS && pthread_create(&threads[i], NULL, echo, &ranges[i]) != 0) return 1;
    }
    echo(&ranges[THREADS]);
    for (i = 0; i < THREADS; i++) pthread_join(threads[i], NULL);
    for (i = 0; i <= THREADS; i++) failed |= ranges[i].failed;
    if (ppg_wait(started, TIME_LIMIT_MS, NULL, &error) != PPG_OK ||
        ppg_call(plugin, "DockerHost", NULL, 0, NULL, &reply, &error) != PPG_OK) {
        fprintf(stderr, "sample1-host: %s\n", error.message);
        failed = 1;
    }
    ppg_pending_free(started);
    if (!failed) {
        pthread_mutex_lock(&said.lock);
        while (said.replies < 0) pthread_cond_wait(&said.changed, &said.lock);
        pthread_mutex_unlock(&said.lock);
    }
    failed |= said.replies != CALLS || strcmp(ppg_reply_text(reply), DOCKER_HOST) != 0;
    failed |= ppg_plugin_stop(plugin, &status, &error) != PPG_OK || status != 0;
    if (!failed) printf("sample1: %d Echo, %d Repeat, docker host %s, done\n", CALLS, said.replies, ppg_reply_text(reply));
    ppg_reply_free(reply);
    ppg_free(plugin);
    return failed;
}
