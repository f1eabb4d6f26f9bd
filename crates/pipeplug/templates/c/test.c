/* Tests of the plugin {{name}}: make check */

#include "pipeplug.h"

#include <stdio.h>
#include <string.h>

static int failed = 0;

static void check(const char *name, int is_well, const char *came) {
    printf("%s %s%s%s\n", is_well ? "ok  " : "FAIL", name, is_well ? "" : ": ", is_well ? "" : came);
    if (!is_well) failed = 1;
}

int main(int argc, char **argv) {
    ppg_peer *plugin = ppg_plugin_new(argc > 1 ? argv[1] : "./{{name}}");
    ppg_reply *reply = NULL;
    ppg_error error;
    ppg_status status = ppg_plugin_start(plugin, &error);
    check("starts", status == PPG_OK, error.message);
    if (status == PPG_OK) {
        status = ppg_call(plugin, "hello", "world", 5, NULL, &reply, &error);
        check("greets", status == PPG_OK && strcmp(ppg_reply_text(reply), "hello, world") == 0,
              status == PPG_OK ? ppg_reply_text(reply) : error.message);
        ppg_reply_free(reply);
        ppg_call(plugin, "nonsense", NULL, 0, NULL, &reply, &error);
        check("other commands are errors", strcmp(ppg_reply_code(reply), "unknown_command") == 0, error.message);
        ppg_reply_free(reply);
    }
    ppg_free(plugin);
    return failed;
}
