/* The plugin {{name}}. */

#include "pipeplug.h"

#include <stdlib.h>
#include <string.h>

/* Handles a request. Several threads call it at once. */
static void hello(ppg_request *request, void *user) {
    static const char greeting[] = {'h', 'e', 'l', 'l', 'o', ',', ' '};
    size_t length = ppg_request_len(request);
    char *reply = malloc(sizeof greeting + length);
    (void)user;
    if (reply == NULL) {
        ppg_fail(request, NULL, "no memory", NULL);
        return;
    }
    memcpy(reply, greeting, sizeof greeting);
    if (length > 0) memcpy(reply + sizeof greeting, ppg_request_data(request), length);
    ppg_answer(request, reply, sizeof greeting + length);
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
