complete --keep-order --exclusive --command pipeplug --arguments "(COMPLETE=fish pipeplug -- (commandline --current-process --tokenize --cut-at-cursor) (commandline --current-token))"
