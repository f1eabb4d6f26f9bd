//! Templates of projects, one for each language: the files of `templates/LANG`, and a copy of the library for
//! the language. `libraries` has links to those of `sdk`, which packaging follows, and what `sdk/node/single.mjs`
//! makes of that for Node: `sdk/node/check.sh` checks that it is current.

use clap::ValueEnum;
use include_dir::{Dir, include_dir};

/// Language of a project.
#[derive(Debug, Clone, Copy, PartialEq, Eq, ValueEnum)]
pub(crate) enum Language {
    #[value(alias = "rs")]
    Rust,
    #[value(alias = "py")]
    Python,
    #[value(aliases = ["js", "javascript", "nodejs"])]
    Node,
    #[value(alias = "ts")]
    Typescript,
    #[value(alias = "golang")]
    Go,
    C,
    #[value(aliases = ["shell", "posix"])]
    Sh,
}

/// A project of one language.
pub(super) struct Template {
    pub(super) files: &'static [File],
    pub(super) library: Option<Library>,
    /// Name of the language for people, and what the project needs.
    pub(super) title: &'static str,
    pub(super) needs: &'static str,
    /// Commands to type in the directory of the project, each with a placeholder for the name.
    pub(super) next: &'static [&'static str],
}

/// File of a project. Name and text may have placeholders.
pub(super) struct File {
    pub(super) name: &'static str,
    pub(super) text: &'static str,
    /// Purpose, for the list of files. `None` for a file that needs no mention.
    pub(super) purpose: Option<&'static str>,
    pub(super) is_executable: bool,
}

/// Library for a language, of which a project has a copy.
#[derive(Clone, Copy)]
pub(super) struct Library {
    files: &'static Dir<'static>,
    /// Where the project has it; the name ends with `/` if it is a directory.
    pub(super) name: &'static str,
    /// Returns true if a program needs the file with this path in the library.
    is_needed: fn(&str) -> bool,
}

impl Library {
    /// Paths in the project, and contents.
    pub(super) fn files(&self) -> impl Iterator<Item = (String, &'static [u8])> {
        let dir = if self.name.ends_with('/') { self.name } else { "" };
        let needed = self.files.files().filter_map(|file| Some((file.path().to_str()?, file)));
        let needed = needed.filter(|(path, _)| (self.is_needed)(path));
        needed.map(move |(path, file)| (format!("{dir}{path}"), file.contents()))
    }
}

/// The library in a directory of `libraries`.
macro_rules! library {
    ($name:literal, $dir:tt, $is_needed:expr) => {{
        static FILES: Dir<'_> = include_dir!($dir);
        Some(Library { files: &FILES, name: $name, is_needed: $is_needed })
    }};
}

/// A file of a template: its name in the project, its path in `templates`, its purpose.
macro_rules! file {
    ($name:literal, $path:literal) => {
        File {
            name: $name,
            text: include_str!(concat!("../../../templates/", $path)),
            purpose: None,
            is_executable: false,
        }
    };
    ($name:literal, $path:literal, $purpose:literal) => {
        File { purpose: Some($purpose), ..file!($name, $path) }
    };
    ($name:literal, $path:literal, $purpose:literal, executable) => {
        File { is_executable: true, ..file!($name, $path, $purpose) }
    };
}

impl Language {
    pub(super) const fn template(self) -> &'static Template {
        match self {
            Self::Rust => &RUST,
            Self::Python => &PYTHON,
            Self::Node => &NODE,
            Self::Typescript => &TYPESCRIPT,
            Self::Go => &GO,
            Self::C => &C,
            Self::Sh => &SH,
        }
    }
}

const RUST: Template = Template {
    files: &[
        file!("Cargo.toml", "rust/Cargo.toml.in"),
        file!("src/main.rs", "rust/src/main.rs", "the plugin, a typed service, and its test"),
        file!("README.md", "rust/README.md"),
        file!(".gitignore", "rust/gitignore"),
    ],
    library: None,
    title: "Rust",
    needs: "cargo, and the crates pipeplug-guest, -service and -testkit",
    next: &[
        "cargo test",
        "cargo build",
        "pipeplug run ./target/debug/{{name}} --call greeter.hello name=world",
        "pipeplug conform ./target/debug/{{name}}",
    ],
};

const PYTHON: Template = Template {
    files: &[
        file!("{{module}}.py", "python/plugin.py", "the plugin", executable),
        file!("test_{{module}}.py", "python/test_plugin.py", "its tests"),
        file!("README.md", "python/README.md"),
        file!(".gitignore", "python/gitignore"),
    ],
    library: library!("pipeplug/", "$CARGO_MANIFEST_DIR/libraries/python", |_| true),
    title: "Python",
    needs: "Python 3.9",
    next: &[
        "python3 -m unittest",
        "pipeplug run ./{{module}}.py --call hello world",
        "pipeplug conform ./{{module}}.py --call hello=world",
    ],
};

const NODE: Template = Template {
    files: &[
        file!("{{name}}.js", "node/plugin.js", "the plugin", executable),
        file!("{{name}}.test.js", "node/plugin.test.js", "its tests"),
        file!("package.json", "node/package.json"),
        file!("README.md", "node/README.md"),
        file!(".gitignore", "node/gitignore"),
    ],
    library: library!("pipeplug.*", "$CARGO_MANIFEST_DIR/libraries/node", |_| true),
    title: "JavaScript with Node.js",
    needs: "Node.js 18",
    next: &[
        "node --test",
        "pipeplug run ./{{name}}.js --call hello world",
        "pipeplug conform ./{{name}}.js --call hello=world",
    ],
};

const TYPESCRIPT: Template = Template {
    files: &[
        file!("{{name}}.ts", "typescript/plugin.ts", "the plugin", executable),
        file!("{{name}}.test.ts", "typescript/plugin.test.ts", "its tests"),
        file!("package.json", "typescript/package.json"),
        file!("tsconfig.json", "typescript/tsconfig.json"),
        file!("README.md", "typescript/README.md"),
        file!(".gitignore", "typescript/gitignore"),
    ],
    library: NODE.library,
    title: "TypeScript with Node.js",
    needs: "Node.js 18, and npm for the compiler",
    next: &[
        "npm install",
        "npm test",
        "pipeplug run ./{{name}}.js --call hello world",
        "pipeplug conform ./{{name}}.js --call hello=world",
    ],
};

const GO: Template = Template {
    files: &[
        file!("main.go", "go/main.go", "the plugin"),
        file!("main_test.go", "go/main_test.go", "its tests"),
        file!("go.mod", "go/go.mod.in"),
        file!("README.md", "go/README.md"),
        file!(".gitignore", "go/gitignore"),
    ],
    library: library!("pipeplug/", "$CARGO_MANIFEST_DIR/libraries/go", |path| {
        path == "go.mod" || path.ends_with(".go") && !path.ends_with("_test.go")
    }),
    title: "Go",
    needs: "Go 1.19",
    next: &[
        "go test",
        "go build",
        "pipeplug run ./{{name}} --call hello world",
        "pipeplug conform ./{{name}} --call hello=world",
    ],
};

const C: Template = Template {
    files: &[
        file!("{{name}}.c", "c/plugin.c", "the plugin"),
        file!("test.c", "c/test.c", "its tests"),
        file!("Makefile", "c/Makefile.in"),
        file!("README.md", "c/README.md"),
        file!(".gitignore", "c/gitignore"),
    ],
    library: library!("pipeplug.*", "$CARGO_MANIFEST_DIR/libraries/c", |_| true),
    title: "C",
    needs: "a C compiler and make",
    next: &[
        "make check",
        "pipeplug run ./{{name}} --call hello world",
        "pipeplug conform ./{{name}} --call hello=world",
    ],
};

const SH: Template = Template {
    files: &[
        file!("{{name}}.sh", "sh/plugin.sh", "the plugin", executable),
        file!("test.sh", "sh/test.sh", "its tests", executable),
        file!("README.md", "sh/README.md"),
    ],
    library: library!("pipeplug.sh", "$CARGO_MANIFEST_DIR/libraries/sh", |_| true),
    title: "POSIX sh",
    needs: "pipeplug and base64",
    next: &[
        "./test.sh",
        "pipeplug run ./{{name}}.sh --call hello world",
        "pipeplug conform ./{{name}}.sh --basic --timeout 60s --call hello=world",
    ],
};
