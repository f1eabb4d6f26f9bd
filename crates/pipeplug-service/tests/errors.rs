//! Errors of the macros: each points to the line of the user, and says what to write.

#[test]
fn mistakes_are_explained_at_their_place() {
    trybuild::TestCases::new().compile_fail("tests/errors/*.rs");
}
