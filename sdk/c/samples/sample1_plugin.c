/* The plugin: asks the host for the Docker host when it starts, then answers and calls back. */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeplug.h"

/* The Docker host that the host has named at the start. */
struct state {
    ppg_reply *docker_host;
};

static int start(ppg_peer *host, void *user) {
    struct state *state = user;
    ppg_error error;
    /* Runs before the first request comes in, so the handlers find the answer. */
    if (ppg_call(host, "GetDockerHost", NULL, 0, NULL, &state->docker_host, &error) != PPG_OK) {
        fprintf(stderr, "sample1-plugin: %s\n", error.message);
        return 1;
    }
    fprintf(stderr, "sample1-plugin: the docker host is %s\n", ppg_reply_text(state->docker_host));
    return 0;
}

static void echo(ppg_request *request, void *user) {
    (void)user;
    ppg_answer(request, ppg_request_data(request), ppg_request_len(request));
}

static void docker_host(ppg_request *request, void *user) {
    struct state *state = user;
    ppg_answer(request, ppg_reply_data(state->docker_host), ppg_reply_len(state->docker_host));
}

/* Calls the host as often as it asks for, all at once, and sends it a one-way after the last reply. A handler may block
 * on calls of its own: other requests are handled meanwhile. */
static void repeat(ppg_request *request, void *user) {
    ppg_peer *host = ppg_request_peer(request);
    const char *text = ppg_request_text(request);
    size_t count = text == NULL ? 0 : strtoul(text, NULL, 10), begun = 0, i;
    ppg_pending **pending = calloc(count + 1, sizeof *pending);
    ppg_error error = {PPG_ENOMEM, "no memory"};
    ppg_status status = pending == NULL ? PPG_ENOMEM : PPG_OK;
    char line[64];
    (void)user;
    for (; status == PPG_OK && begun < count; begun++) {
        snprintf(line, sizeof line, "repeat %lu.", (unsigned long)begun);
        status = ppg_begin(host, "Repeat", line, strlen(line), NULL, &pending[begun], &error);
    }
    for (i = 0; status == PPG_OK && i < begun; i++) {
        ppg_reply *reply = NULL;
        status = ppg_wait(pending[i], -1, &reply, &error);
        snprintf(line, sizeof line, "repeat %lu.repeat %lu.", (unsigned long)i, (unsigned long)i);
        if (status == PPG_OK && strcmp(ppg_reply_text(reply), line) != 0) {
            status = PPG_EPEER;
            snprintf(error.message, sizeof error.message, "Repeat brought \"%.64s\"", ppg_reply_text(reply));
        }
        ppg_reply_free(reply);
    }
    for (i = 0; i < begun; i++) ppg_pending_free(pending[i]);
    free(pending);
    snprintf(line, sizeof line, "%lu", (unsigned long)count);
    if (status == PPG_OK) status = ppg_notify(host, "Done", line, strlen(line), &error);
    if (status == PPG_OK)
        ppg_answer(request, NULL, 0);
    else
        ppg_fail(request, NULL, error.message, NULL);
}

int main(int argc, char **argv) {
    struct state state = {NULL};
    ppg_peer *host = ppg_guest_new(NULL);
    int status;
    ppg_guest_on_start(host, start, &state);
    ppg_on(host, "Echo", echo, NULL);
    ppg_on(host, "DockerHost", docker_host, &state);
    ppg_on(host, "Start", repeat, NULL);
    status = ppg_guest_run(host, argc, argv);
    ppg_reply_free(state.docker_host);
    return status;
}
