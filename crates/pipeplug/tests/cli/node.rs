//! Plugins in Node, with the code of docs/placement.md.

use std::process::{Command, Stdio};
use std::thread;

use crate::common::{Place, has_tool, pipeplug, wait};
use crate::launcher::is_listened_at;

const DOCS: &str = include_str!("../../../../docs/placement.md");

/// Echoes over what `channel` gives.
const SERVES: &str = r#"
channel((input, output) => {
  let bytes = Buffer.alloc(0);
  const field = (at) => [bytes.toString("latin1", at, bytes.indexOf(0, at)), bytes.indexOf(0, at) + 1];
  const serve = () => {
    if (bytes.filter((byte) => byte === 0).length < 5) return false;
    const [id, afterId] = field(0);
    const [direction, afterDirection] = field(afterId);
    const [length, start] = field(afterDirection);
    const command = bytes.toString("utf8", start, start + Number(length));
    const [size, data] = field(start + Number(length) + 1);
    const end = data + Number(size);
    if (bytes.length < end) return false;
    const buffer = command === "GetMetadata" ? Buffer.from("{}") : bytes.subarray(data, end);
    bytes = bytes.subarray(end);
    if (command === "cmd.stop") process.exit(0);
    if (direction === "2") {
      output.write(Buffer.concat([Buffer.from(`${id}\0${3}\0${length}\0${command}\0${buffer.length}\0`), buffer]));
    }
    return true;
  };
  input.on("data", (more) => { bytes = Buffer.concat([bytes, more]); while (serve()); });
  input.on("end", () => process.exit(0));
});
"#;

fn plugin(place: &Place) -> Option<String> {
    let code = DOCS.split("```js\n").nth(1).unwrap().split("```").next().unwrap();
    let path = place.executable("plugin", &format!("#!/usr/bin/env node\n{code}{SERVES}"));
    has_tool("node", "nodejs").then(|| path.into_os_string().into_string().unwrap())
}

#[test]
fn it_talks_over_any_descriptors() {
    let place = Place::new();
    let Some(plugin) = plugin(&place) else { return };
    for more in [&[][..], &["--stdio"]] {
        let args = [&["run", &plugin], more, &["--call", "echo", "hello"]].concat();
        pipeplug(args).run().exits(0).prints("hello").says_only("");
    }
}

#[test]
fn it_waits_for_a_host_that_attaches() {
    let place = Place::new();
    let Some(plugin) = plugin(&place) else { return };
    let socket = place.path().join("s");
    let guest = Command::new(plugin)
        .arg("--pipeplug-listen")
        .arg(&socket)
        .stdin(Stdio::null())
        .spawn()
        .unwrap();
    while !is_listened_at(&socket) {
        thread::yield_now();
    }
    let args = ["run", "--attach", socket.to_str().unwrap(), "--call", "echo", "hello"];
    pipeplug(args).run().exits(0).prints("hello").says_only("");
    assert_eq!(wait(guest), Some(0), "it was told to stop");
    assert!(!socket.exists());
}

/// Passes them on as a program does that listens in the plugin's place.
#[test]
fn it_talks_over_a_socket_in_a_descriptor_s_place() {
    let place = Place::new();
    let Some(plugin) = plugin(&place) else { return };
    let socket = place.path().join("s");
    let relay = "import os, socket, sys
listener = socket.socket(socket.AF_UNIX)
listener.bind(sys.argv[1])
listener.listen(1)
host = listener.accept()[0]
os.dup2(host.fileno(), 3), os.dup2(host.fileno(), 4)
os.set_inheritable(3, True), os.set_inheritable(4, True)
os.execv(sys.argv[2], [sys.argv[2], '3', '4'])";
    let mut command = Command::new("/usr/bin/python3");
    let Ok(guest) =
        command.args(["-c", relay]).arg(&socket).arg(plugin).stdin(Stdio::null()).spawn()
    else {
        return crate::common::missing("python3 is missing (Debian: apt-get install python3)");
    };
    while !is_listened_at(&socket) {
        thread::yield_now();
    }
    let args = ["run", "--attach", socket.to_str().unwrap(), "--call", "echo", "hello"];
    pipeplug(args).run().exits(0).prints("hello").says_only("");
    assert_eq!(wait(guest), Some(0));
}
