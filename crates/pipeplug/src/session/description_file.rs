//! Files with the description of typed services, as `pipeplug inspect --schema` writes them.

use std::ffi::OsStr;
use std::fs::File;
use std::io::{self, Read as _};
use std::os::unix::fs::PermissionsExt as _;
use std::path::Path;

use pipeplug_service::Description;

use crate::exit::{CommandError, ExitReason};
use crate::output::text::Escaped;

/// Largest description, in bytes.
const SIZE_MAX: u64 = 64 << 20;

/// Bytes at the beginning of a file that tell what it is.
const HEAD: u64 = 1024;

/// First bytes of executables: a script, ELF, and Mach-O for one processor and for several.
const EXECUTABLE: [&[u8]; 4] = [b"#!", b"\x7fELF", b"\xcf\xfa\xed\xfe", b"\xca\xfe\xba\xbe"];

/// Reads the description in a file. `None` if this is no file with one, but a plugin or its name.
///
/// # Errors
/// The file has something else, or cannot be read.
pub(crate) fn read(source: &OsStr) -> Option<Result<Description, CommandError>> {
    let path = Path::new(source);
    let metadata = path.metadata().ok().filter(std::fs::Metadata::is_file)?;
    let mut bytes = Vec::new();
    let file = File::open(path).and_then(|file| {
        (&file).take(HEAD).read_to_end(&mut bytes)?;
        Ok(file)
    });
    let named = path.extension().is_some_and(|it| it.eq_ignore_ascii_case("json"));
    // A name without a slash may be that of an installed plugin.
    let may_be_plugin =
        metadata.permissions().mode() & 0o111 != 0 || path.components().nth(1).is_none();
    let begins_so =
        bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(&bytes).trim_ascii_start().starts_with(b"{");
    let is_plugin = !begins_so && may_be_plugin && !named;
    if is_plugin || EXECUTABLE.iter().any(|it| bytes.starts_with(it)) {
        return None;
    }
    let shown = source.to_string_lossy();
    let described = file.map_err(|error| format!("it cannot be read: {error}")).and_then(|file| {
        file.take(SIZE_MAX)
            .read_to_end(&mut bytes)
            .map_err(|error: io::Error| error.to_string())?;
        parse(&bytes)
    });
    Some(described.map_err(|problem| {
        let shown = Escaped(&shown);
        let message = format!(
            "{shown} is no description of services, as `pipeplug inspect --schema` writes it: {problem}"
        );
        CommandError::message(ExitReason::Usage, message)
    }))
}

fn parse(bytes: &[u8]) -> Result<Description, String> {
    if bytes.len() as u64 > SIZE_MAX {
        return Err(format!("it is larger than {SIZE_MAX} B"));
    }
    // Editors of other systems begin a file with the mark of its encoding.
    let bytes = bytes.strip_prefix(b"\xef\xbb\xbf").unwrap_or(bytes);
    if bytes.starts_with(b"\xff\xfe") || bytes.starts_with(b"\xfe\xff") {
        return Err("it is text in UTF-16, save it as UTF-8".into());
    }
    let text = std::str::from_utf8(bytes)
        .map_err(|error| format!("it is no text in UTF-8 from byte {} on", error.valid_up_to()))?;
    let start = text.trim_ascii_start();
    match start.chars().next() {
        None => Err("it is empty".into()),
        Some('{') => serde_json::from_str(text).map_err(|error| error.to_string()),
        Some(other) => {
            let before = &text[..text.len() - start.len()];
            let line = before.matches('\n').count() + 1;
            let column = before.rsplit('\n').next().map_or(0, str::len) + 1;
            Err(format!(
                "it begins with {:?} in place of \"{{\" at line {line} column {column}; a plugin has \
                 to be executable (chmod +x)",
                String::from(other)
            ))
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_is_no_description_is_named_with_its_place() {
        for (bytes, problem) in [
            (&b""[..], "it is empty"),
            (b" \n\t", "it is empty"),
            (b"\xef\xbb\xbf", "it is empty"),
            (b"[]", "begins with \"[\" in place of \"{\" at line 1 column 1;"),
            (b"\n\n  hello", "begins with \"h\" in place of \"{\" at line 3 column 3;"),
            (b"\xff\xfe{\0", "UTF-16"),
            (b"{\"a\": \"\xff\"}", "no text in UTF-8 from byte 7 on"),
            (b"{\n\"services\": 5}", "at line 2 column 13"),
            (b"{", "at line 1 column 1"),
        ] {
            let error = parse(bytes).map(|_| ()).unwrap_err();
            assert!(error.contains(problem), "{error} for {bytes:?}");
        }
        assert!(parse(b"\xef\xbb\xbf{\"services\": []}").is_ok());
        assert!(parse(b" \r\n{\"services\": []}\r\n").is_ok());
    }
}
