/* The plugin {{name}}. */

#include "pipeplug.h"

#include <stdlib.h>
#include <string.h>

/* Handles a request. Several threads call it at once. */
static void hello(ppg_request *request, void *user) {
    static const char greeting[] = "hello, ";
    const size_t before = sizeof greeting - 1, length = ppg_request_len(request);
    char *reply = malloc(before + length);
    (void)user;
    if (reply == NULL) {
        ppg_fail(request, NULL, "no memory", NULL);
        return;
    }
    memcpy(reply, greeting, before);
    if (length > 0) memcpy(reply + before, ppg_request_data(request), length);
    ppg_answer(request, reply, before + length);
    free(reply);
}

int main(int argc, char **argv) {
    ppg_peer *host = ppg_guest_new("{{name}}");
    ppg_set_metadata(host, "Cmd", "hello");
    ppg_set_metadata(host, "Description", "greets whom it is told");
    ppg_set_metadata(host, "pipeplug.name", "{{name}}");
    ppg_set_metadata(host, "pipeplug.version", "0.1.0");
    ppg_on(host, "hello", hello, NULL);
    return ppg_guest_run(host, argc, argv);
}
