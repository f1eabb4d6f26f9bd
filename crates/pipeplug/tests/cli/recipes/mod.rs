//! The commands that docs/placement.md has for `--via`: each one is read there, run, and has to do
//! what it is there for.

mod slurm;

use std::fs::{self, Permissions};
use std::os::unix::fs::PermissionsExt;
use std::path::Path;
use std::process::{Child, Command, Stdio};
use std::thread;
use std::time::{Duration, Instant};

use crate::common::{LONG, Place, has_tool, missing};

const DOCS: &str = include_str!("../../../../../docs/placement.md");

/// Runs what it is told in a shell, on standard input and output.
const RUNS: &str = r#"
while recv; do
    case $cmd in
    cmd.stop) exit 0 ;;
    GetMetadata) send 3 "$cmd" '{}' ;;
    *) send 3 "$cmd" "$(eval "$data" 2>&1)" ;;
    esac
done
"#;

/// Answers with a variable, the working directory and its machine.
const FOREIGN: &str = r#"
#include <stdio.h>
#include <stdlib.h>
#include <string.h>
#include <sys/utsname.h>
#include <unistd.h>

static void text(char *to, int end)
{
    int c;
    while ((c = getchar()) != end) {
        if (c == EOF)
            exit(0);
        *to++ = c;
    }
    *to = 0;
}

int main(void)
{
    char id[32], direction[32], command[256], buffer[256], reply[1024], cwd[512], *at;
    struct utsname machine;
    for (;;) {
        text(id, 0), text(direction, 0), text(command, 0), text(command, 0), text(buffer, 0);
        for (int n = atoi(buffer); n > 0; n--)
            getchar();
        if (strcmp(command, "cmd.stop") == 0)
            return 0;
        uname(&machine);
        at = getenv("PLUGIN_A");
        snprintf(reply, sizeof reply, "%s|%s\n%s", at ? at : "", getcwd(cwd, sizeof cwd), machine.machine);
        if (strcmp(command, "GetMetadata") == 0)
            strcpy(reply, "{}");
        printf("%s%c3%c%zu%c%s%c%zu%c%s", id, 0, 0, strlen(command), 0, command, 0, strlen(reply), 0, reply);
        fflush(stdout);
    }
}
"#;

/// The commands of the table, as they stand there.
fn recipes() -> Vec<&'static str> {
    let table = DOCS.split("| to have it | `--via` |").nth(1).unwrap();
    let rows = table.lines().skip(1).take_while(|line| line.starts_with('|') || line.is_empty());
    let cells = rows.filter_map(|row| row.split(" | ").nth(1));
    cells
        .flat_map(|cell| cell.split("`\"").skip(1).map(|span| span.split("\"`").next().unwrap()))
        .collect()
}

/// A test of each program, and none without one.
macro_rules! recipes {
    ($($name:ident $program:literal),+ $(,)?) => {
        $(
            #[test]
            fn $name() {
                let recipes = recipes();
                let recipe = recipes.iter().find(|recipe| recipe.split(' ').next() == Some($program));
                run::$name(recipe.unwrap());
            }
        )+

        #[test]
        fn each_recipe_is_run() {
            let programs: Vec<_> = recipes().iter().map(|recipe| recipe.split(' ').next().unwrap()).collect();
            assert_eq!(programs, [$($program),+]);
        }
    };
}

recipes! {
    sudo "sudo",
    unshare "unshare",
    bwrap "bwrap",
    nsenter "nsenter",
    docker "docker",
    prlimit "prlimit",
    srun "srun",
    strace "strace",
    valgrind "valgrind",
    qemu "qemu-aarch64",
}

/// A plugin, and the directory that it is to be started in.
struct Room {
    place: Place,
}

impl Room {
    fn new() -> Self {
        let place = Place::new();
        place.standard("plugin", RUNS);
        // Another user has to get there.
        fs::set_permissions(place.path(), Permissions::from_mode(0o755)).unwrap();
        fs::create_dir(place.path().join("a dir")).unwrap();
        Self { place }
    }

    /// Runs the plugin by this command, with a variable and a directory set for it and without;
    /// gives what the shell command printed there.
    fn prints(&self, recipe: &str, told: &str) -> String {
        let plugin = self.place.path().join("plugin");
        let dir = self.place.path().join("a dir");
        let args = ["run", plugin.to_str().unwrap(), "--via", recipe, "--timeout", "60s"];
        let plain = self.run(&[&args[..], &["--call", "sh", "echo hello"]].concat());
        assert_eq!(plain.split('|').next_back().unwrap().lines().next(), Some("hello"), "{recipe}");
        let value = "it's \"$HOME\"";
        let variable = format!("PLUGIN_A={value}");
        let set = ["--env", &variable, "--cwd", dir.to_str().unwrap()];
        let told = format!("printf '%s|%s\\n' \"$PLUGIN_A\" \"$PWD\"; {told}");
        let printed = self.run(&[&args[..], &set, &["--call", "sh", &told]].concat());
        let dir = dir.canonicalize().unwrap();
        let rest = printed.strip_prefix(&format!("{value}|{}\n", dir.to_str().unwrap()));
        rest.unwrap_or_else(|| panic!("{recipe}: {printed}")).trim_end().to_owned()
    }

    fn run(&self, args: &[&str]) -> String {
        let mut run = self.place.pipeplug(args);
        run.command.current_dir(self.place.path());
        run.run().exits(0).text().to_owned()
    }
}

/// A process that goes with this.
struct Running(Child);

impl Running {
    fn start(command: &mut Command) -> Self {
        Self(command.stdin(Stdio::null()).spawn().unwrap())
    }
}

impl Drop for Running {
    fn drop(&mut self) {
        // It may have ended.
        let _ = self.0.kill();
        let _ = self.0.wait();
    }
}

#[track_caller]
fn eventually<T>(what: &str, mut look: impl FnMut() -> Option<T>) -> T {
    let begun = Instant::now();
    loop {
        if let Some(found) = look() {
            return found;
        }
        assert!(begun.elapsed() < LONG, "{what}");
        thread::sleep(Duration::from_millis(20));
    }
}

/// Output of a command that has to end well.
#[track_caller]
fn output(command: &mut Command) -> String {
    let output = command.stdin(Stdio::null()).output().unwrap();
    assert!(output.status.success(), "{command:?}: {}", String::from_utf8_lossy(&output.stderr));
    String::from_utf8(output.stdout).unwrap().trim_end().to_owned()
}

fn is_root(what: &str) -> bool {
    let is = nix::unistd::geteuid().is_root();
    if !is {
        missing(&format!("only root can test {what}"));
    }
    is
}

fn is_there(path: &Path) -> bool {
    fs::metadata(path).is_ok_and(|metadata| metadata.len() > 0)
}

/// The tests; the macro has one of each.
mod run {
    use super::{
        Child, Command, FOREIGN, Path, Room, Running, eventually, fs, has_tool, is_root, is_there,
        missing, output, slurm,
    };

    pub(super) fn sudo(recipe: &str) {
        if has_tool("sudo", "sudo") && is_root("sudo") {
            let told = "echo $(id -un)";
            assert_eq!(Room::new().prints(&recipe.replace("guest", "nobody"), told), "nobody");
        }
    }

    pub(super) fn unshare(recipe: &str) {
        if has_tool("unshare", "util-linux") {
            let told = "echo $$ $(grep -c : /proc/self/net/dev)";
            assert_eq!(
                Room::new().prints(recipe, told),
                "1 1",
                "the first of its processes, and one device"
            );
        }
    }

    pub(super) fn bwrap(recipe: &str) {
        if has_tool("bwrap", "bubblewrap") {
            let told =
                "touch here 2>&1 | grep -o 'Read-only file system'; grep -c : /proc/self/net/dev";
            assert_eq!(Room::new().prints(recipe, told), "Read-only file system\n1");
        }
    }

    pub(super) fn nsenter(recipe: &str) {
        if !has_tool("nsenter", "util-linux") || !is_root("nsenter") {
            return;
        }
        let args = ["--mount", "--net", "--pid", "--fork", "--kill-child", "sleep", "1000"];
        let other = Running::start(Command::new("unshare").args(args));
        let pid = eventually("it is in its namespaces", || only_child(&other.0));
        let namespace = fs::read_link(format!("/proc/{pid}/ns/net")).unwrap();
        let room = Room::new();
        let entered = room.prints(&recipe.replace("PID", &pid), "readlink /proc/self/ns/net");
        assert_eq!(Path::new(&entered), namespace);
        assert_ne!(namespace, fs::read_link("/proc/self/ns/net").unwrap());
    }

    fn only_child(process: &Child) -> Option<String> {
        let pid = process.id();
        let children = fs::read_to_string(format!("/proc/{pid}/task/{pid}/children")).unwrap();
        let child = children.split_whitespace().next()?.to_owned();
        // It has been forked, and is yet to execute what stays.
        let name = fs::read_to_string(format!("/proc/{child}/comm")).ok()?;
        (name.trim_end() == "sleep").then_some(child)
    }

    pub(super) fn docker(recipe: &str) {
        if !Command::new("docker").arg("info").output().is_ok_and(|output| output.status.success())
        {
            return missing("docker is missing, or `docker info` fails");
        }
        let room = Room::new();
        let name = format!("pipeplug-recipe-{}", std::process::id());
        // This machine's programs, in an image that has nothing of its own.
        let import = r#"mkdir "$0/root" && cd "$0/root" && mkdir usr tmp etc proc &&
            for name in bin lib lib64; do ln -s usr/$name $name; done && tar -c . | docker import - "$1":recipe"#;
        output(Command::new("sh").args(["-c", import]).arg(room.place.path()).arg(&name));
        let dir = room.place.path().to_str().unwrap();
        let mounts = ["--volume=/usr:/usr:ro", &format!("--volume={dir}:{dir}")];
        let args = ["--detach", "--init", "--network=none", "--name", &name];
        let image = format!("{name}:recipe");
        let command = [&["run"], &args[..], &mounts, &[&image, "/bin/sleep", "1000"]].concat();
        let _removed = Removed(
            [["rm", "--force", &name], ["rmi", "--force", &image]]
                .map(|args| args.map(str::to_owned)),
        );
        output(Command::new("docker").args(command));
        let printed = room.prints(&recipe.replace("NAME", &name), "ls /");
        assert!(
            !printed.split_whitespace().any(|name| name == "home"),
            "it is in the container: {printed}"
        );
    }

    /// A container and its image, which go with this.
    struct Removed([[String; 3]; 2]);

    impl Drop for Removed {
        fn drop(&mut self) {
            for args in &self.0 {
                // A test that fails may have made neither.
                let _ = Command::new("docker").args(args).output();
            }
        }
    }

    pub(super) fn prlimit(recipe: &str) {
        if has_tool("prlimit", "util-linux") {
            assert_eq!(Room::new().prints(recipe, "ulimit -v; ulimit -t"), "1000000\n60");
        }
    }

    pub(super) fn srun(recipe: &str) {
        let tools = [
            ("srun", "slurm-client"),
            ("slurmd", "slurmd"),
            ("slurmctld", "slurmctld"),
            ("munged", "munge"),
        ];
        if !tools.iter().all(|(program, package)| has_tool(program, package)) {
            return;
        }
        let cluster = slurm::Cluster::start();
        let recipe =
            recipe.replace("srun", &format!("env SLURM_CONF={} srun", cluster.config().display()));
        let job = Room::new().prints(&recipe, "echo $SLURM_JOB_ID");
        assert!(job.parse::<u32>().is_ok(), "{job:?}");
    }

    pub(super) fn strace(recipe: &str) {
        if has_tool("strace", "strace") {
            let room = Room::new();
            assert_eq!(room.prints(recipe, "echo traced"), "traced");
            let trace = fs::read_to_string(room.place.path().join("trace.txt")).unwrap();
            let plugin = room.place.path().join("plugin");
            assert!(trace.contains(&format!("execve({plugin:?}")), "{trace}");
        }
    }

    pub(super) fn valgrind(recipe: &str) {
        if has_tool("valgrind", "valgrind") {
            let room = Room::new();
            let pid = room.prints(recipe, "echo $$");
            let log =
                fs::read_to_string(room.place.path().join(format!("valgrind.{pid}.txt"))).unwrap();
            assert!(log.contains("Memcheck") && log.contains("/plugin"), "{log}");
        }
    }

    pub(super) fn qemu(recipe: &str) {
        if !has_tool("qemu-aarch64", "qemu-user")
            || !has_tool("aarch64-linux-gnu-gcc", "gcc-aarch64-linux-gnu libc6-dev-arm64-cross")
        {
            return;
        }
        let room = Room::new();
        let plugin = room.place.path().join("plugin");
        let source = room.place.file("plugin.c", FOREIGN.as_bytes());
        output(Command::new("aarch64-linux-gnu-gcc").arg("-o").arg(&plugin).arg(source));
        assert!(is_there(&plugin));
        let args = [
            "run",
            plugin.to_str().unwrap(),
            "--via",
            recipe,
            "--env",
            "PLUGIN_A=b c",
            "--cwd",
            "/usr",
        ];
        assert_eq!(room.run(&[&args[..], &["--call", "x"]].concat()), "b c|/usr\naarch64");
    }
}
