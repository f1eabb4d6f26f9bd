//! Short names for conditions.

fn main() {
    println!("cargo::rerun-if-changed=build.rs");
    cfg_aliases::cfg_aliases! {
        // What only Linux has: pidfd, namespaces, Landlock. `pipeplug_portable` builds Linux
        // without it.
        linux_native: { all(target_os = "linux", not(pipeplug_portable)) },
        // What the sandbox needs of it.
        linux_sandbox: { all(linux_native, feature = "sandbox") },
    }
}
