//! DATA: literal, from files, from stdin.

use crate::common::{Place, pipeplug};

#[test]
fn a_file_is_sent_as_it_is() {
    let place = Place::new();
    let bytes: Vec<u8> = (0..=255).cycle().take(300_000).collect();
    let data = format!("@{}", place.file("data", &bytes).display());
    let ran = pipeplug(["run", "@echo", "--call", "echo", &data]).run().exits(0);
    assert_eq!(ran.stdout, bytes);
}

#[test]
fn stdin_is_sent_as_it_is() {
    let bytes = b"a\0b\xff\n".to_vec();
    let ran =
        pipeplug(["run", "@echo", "--call", "echo", "@-"]).stdin(bytes.clone()).run().exits(0);
    assert_eq!(ran.stdout, bytes);
}

#[test]
fn stdin_is_read_only_where_it_is_asked_for() {
    pipeplug(["run", "@echo", "--call", "echo", "a"]).stdin("b").run().exits(0).prints("a");
}

#[test]
fn stdin_cannot_be_sent_twice() {
    pipeplug(["run", "@echo", "--call", "echo", "@-", "--answer", "a=@-"])
        .run()
        .exits(2)
        .prints("")
        .says_only(
            "pipeplug: stdin is used twice (by `@-`, --stream or --data-each), but can be read only once: \
                    put the data in a file and write @FILE\n",
        );
}

#[test]
fn a_doubled_at_is_one() {
    pipeplug(["run", "@echo", "--call", "echo", "@@home", "--call", "echo", "@@"])
        .run()
        .exits(0)
        .prints("@home@");
}

#[test]
fn a_missing_file_starts_nothing() {
    pipeplug(["run", "@echo", "--call", "log", "started", "--call", "echo", "@/nonexistent/x"])
        .run()
        .exits(2)
        .prints("")
        .says_only(
            "pipeplug: cannot read the data file /nonexistent/x: No such file or directory (os \
             error 2); for the text `@/nonexistent/x` itself write @@/nonexistent/x\n",
        );
}

#[test]
fn a_dash_begins_data_and_two_begin_an_option() {
    pipeplug([
        "run", "@echo", "--call", "echo", "-5", "--call", "echo", "-", "--call", "echo", "-x=1",
    ])
    .run()
    .exits(0)
    .prints("-5--x=1");
    pipeplug(["run", "@echo", "--call", "echo", "--nope"])
        .run()
        .exits(2)
        .says("unexpected argument '--nope'");
}
