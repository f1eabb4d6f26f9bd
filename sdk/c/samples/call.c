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
    int failed = 1;
    if (plugin == NULL) {
        fputs("usage: call PLUGIN COMMAND [DATA]\n", stderr);
        return 2;
    }
    if (ppg_plugin_start(plugin, &error) != PPG_OK) {
        fprintf(stderr, "call: %s\n", error.message);
    } else if (ppg_call(plugin, argv[2], data, strlen(data), NULL, &reply, &error) != PPG_OK) {
        fprintf(stderr, "call: %s\n", error.message);
    } else {
        printf("%s\n", ppg_reply_text(reply));
        failed = 0;
    }
    ppg_reply_free(reply);
    ppg_free(plugin);
    return failed;
}
