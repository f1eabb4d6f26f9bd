//! Arguments of the engine that no plugin could live with.

use crate::process::SpawnErrorKind;

/// Short options that stand alone, before others in the same word: `-it`.
const ALONE: [char; 5] = ['d', 'i', 'P', 'q', 't'];

/// Refuses what would cut the plugin off from its host, or the container from what removes it.
pub(super) fn check(args: &[String]) -> Result<(), SpawnErrorKind> {
    let refused = args.iter().find_map(|arg| Some((arg, refusal(arg)?)));
    match refused {
        None => Ok(()),
        Some((arg, reason)) => Err(SpawnErrorKind::BadArgument {
            what: format!("the engine's argument {arg:?}"),
            reason,
        }),
    }
}

fn refusal(arg: &str) -> Option<&'static str> {
    const TTY: &str = "a terminal between host and plugin changes the messages: leave it out (an \
                       option's value that looks like it goes into one word with the option, as in \
                       --label=-t)";
    const DETACH: &str = "a container in the background has no pipe to its host: leave it out";
    const ATTACH: &str = "the plugin talks over its standard input and output, which are attached \
                          anyway: leave it out";
    const NAME: &str =
        "the container has a name of its own, by which it is removed: use --label to find it";
    const REMOVE: &str = "the container is removed with its plugin: leave it out";
    let (name, value) =
        arg.split_once('=').map_or((arg, None), |(name, value)| (name, Some(value)));
    let is_off =
        value.is_some_and(|value| matches!(value, "false" | "0" | "f" | "F" | "FALSE" | "False"));
    match name {
        "--tty" if !is_off => Some(TTY),
        "--detach" if !is_off => Some(DETACH),
        "--interactive" | "-i" if is_off => Some(ATTACH),
        "--rm" if is_off => Some(REMOVE),
        "--attach" => Some(ATTACH),
        "--name" => Some(NAME),
        _ => {
            let letters = name.strip_prefix('-').filter(|letters| !letters.starts_with('-'))?;
            // `-t=false` switches the last one off.
            let on = if is_off { letters.len().saturating_sub(1) } else { letters.len() };
            let mut on = letters.chars().take(on);
            loop {
                match on.next()? {
                    't' => return Some(TTY),
                    'd' => return Some(DETACH),
                    'a' => return Some(ATTACH),
                    letter if ALONE.contains(&letter) => {}
                    // The rest of the word is its value.
                    _ => return None,
                }
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_cuts_the_plugin_off_is_refused() {
        let refused = |arg: &str, with: &str| {
            let error = check(&["--label=a".to_owned(), arg.to_owned()]).unwrap_err();
            assert!(error.is_permanent());
            let error = error.to_string();
            assert!(error.contains(&format!("{arg:?}")) && error.contains(with), "{error}");
        };
        for arg in ["-t", "--tty", "--tty=true", "-it", "-ti", "-itd", "-t=true"] {
            refused(arg, "a terminal between host and plugin changes the messages");
        }
        for arg in ["-d", "--detach", "-id", "--detach=true"] {
            refused(arg, "no pipe to its host");
        }
        for arg in
            ["-i=false", "--interactive=false", "--attach", "--attach=stderr", "-a", "-astdout"]
        {
            refused(arg, "attached anyway");
        }
        refused("--name", "use --label");
        refused("--name=spell", "use --label");
        refused("--rm=false", "removed with its plugin");
    }

    #[test]
    fn others_are_not() {
        for arg in [
            "-i",
            "-e=t",
            "-vt:/t",
            "--tty=false",
            "-t=false",
            "-it=false",
            "--tmpfs=/t",
            "-m",
            "--rm",
            "-",
            "t",
            "-ut",
            "",
        ] {
            assert_eq!(refusal(arg), None, "{arg}");
        }
    }
}
