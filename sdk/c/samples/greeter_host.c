/* The host: has a plugin with the service `greeter` greet in each of its languages.
 *
 *     greeter-host [--stdio] [--classic] PLUGIN NAME
 */
#include <stdio.h>
#include <stdlib.h>
#include <string.h>

#include "pipeplug.h"

/* Greets, and prints the greeting, or the reason that there is none. Returns 0 if the call failed. */
static int greet(ppg_peer *plugin, const char *name, const char *language) {
    char *quoted = ppg_json_quote(name), arguments[512];
    ppg_reply *reply = NULL;
    ppg_error error;
    ppg_status status;
    snprintf(arguments, sizeof arguments, "{\"name\":%.400s,\"language\":\"%.20s\"}", quoted, language);
    status = ppg_call(plugin, "greeter.greet", arguments, strlen(arguments), NULL, &reply, &error);
    if (status == PPG_OK) {
        char *greeting = ppg_json_text(ppg_reply_text(reply), ppg_reply_len(reply));
        puts(greeting != NULL ? greeting : "(no text)");
        free(greeting);
    } else if (status == PPG_EPEER && strcmp(ppg_reply_code(reply), "method_error") == 0) {
        /* Data of the plugin's own errors: {"UnknownLanguage":{"language":"…"}}. */
        printf("not in %s\n", language);
        status = PPG_OK;
    } else {
        fprintf(stderr, "greeter-host: %s\n", error.message);
    }
    ppg_reply_free(reply);
    free(quoted);
    return status == PPG_OK;
}

int main(int argc, char **argv) {
    ppg_peer *plugin = NULL;
    ppg_reply *reply = NULL;
    ppg_error error;
    int good = 0, stdio = 0, classic = 0;
    while (argc > 1 && strncmp(argv[1], "--", 2) == 0) {
        stdio |= strcmp(argv[1], "--stdio") == 0;
        classic |= strcmp(argv[1], "--classic") == 0;
        argc--, argv++;
    }
    if (argc > 2) plugin = ppg_plugin_new(argv[1]);
    if (plugin == NULL) {
        fputs("usage: greeter-host [--stdio] [--classic] PLUGIN NAME\n", stderr);
        return 2;
    }
    if (stdio) ppg_plugin_use_stdio(plugin);
    if (classic) ppg_plugin_use_classic(plugin);
    if (ppg_plugin_start(plugin, &error) == PPG_OK &&
        ppg_call(plugin, "greeter.languages", NULL, 0, NULL, &reply, &error) == PPG_OK) {
        /* A list of strings: ["de","en","fr"]. */
        const char *at = ppg_reply_text(reply);
        good = 1;
        while ((at = strchr(at, '"')) != NULL) {
            const char *end = strchr(at + 1, '"');
            char *language = end == NULL ? NULL : ppg_json_text(at, (size_t)(end + 1 - at));
            if (language == NULL) break;
            good &= greet(plugin, argv[2], language);
            free(language);
            at = end + 1;
        }
        good &= greet(plugin, argv[2], "tlh");
    } else {
        fprintf(stderr, "greeter-host: %s\n", error.message);
    }
    ppg_reply_free(reply);
    ppg_free(plugin);
    return !good;
}
