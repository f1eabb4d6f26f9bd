/* A host: starts a plugin, calls it, and stops it.
 *
 *     call PLUGIN COMMAND [DATA]
 */
#include <stdio.h>
#include <string.h>

#include "pipeplug.h"

int main(int argc, char **argv) {
    ppg_peer *plugin = argc > 2 ? ppg_plugin_new(argv[1]) : NULL;
    const char *data = argc > 3 ? argv[3] : "";
    ppg_reply *reply = NULL;
    ppg_error error;
    ppg_status status;
    int failed = 1;
    if (plugin == NULL) {
        fputs("usage: call PLUGIN COMMAND [DATA]\n", stderr);
        return 2;
    }
    if (ppg_plugin_start(plugin, &error) != PPG_OK) {
        fprintf(stderr, "call: %s\n", error.message);
    } else if ((status = ppg_call(plugin, argv[2], data, strlen(data), NULL, &reply, &error)) == PPG_EPEER) {
        /* The plugin's own error: a message for people, a code for programs, and data as JSON. */
        fprintf(stderr, "call: %s\n", error.message);
        if (*ppg_reply_code(reply) != '\0') fprintf(stderr, "code: %s\n", ppg_reply_code(reply));
        if (*ppg_reply_error_data(reply) != '\0') fprintf(stderr, "data: %s\n", ppg_reply_error_data(reply));
    } else if (status != PPG_OK) {
        fprintf(stderr, "call: %s\n", error.message);
    } else {
        printf("%s\n", ppg_reply_text(reply));
        failed = 0;
    }
    ppg_reply_free(reply);
    ppg_free(plugin);
    return failed;
}
