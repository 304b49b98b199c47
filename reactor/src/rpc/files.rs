//! The folder that files have to be in which methods open.

use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

/// A folder outside of which methods open no files, whatever a request names: neither by `..` nor by a symbolic link.
///
/// What a name stands for is looked up once, and it is that which is opened. It does not guard against somebody who can
/// change links in the folder at that moment.
#[derive(Debug, Clone)]
pub struct FilesUnder(Arc<Path>);

impl FilesUnder {
    /// Files in `folder` and the folders in it.
    ///
    /// # Errors
    ///
    /// There is none of this name, or what the system says.
    pub fn new(folder: &Path) -> io::Result<FilesUnder> {
        let folder = folder.canonicalize()?;
        match folder.is_dir() {
            true => Ok(FilesUnder(folder.into())),
            false => Err(io::ErrorKind::NotADirectory.into()),
        }
    }

    /// What `name` stands for, if that is in the folder; names that do not begin with `/` are looked for there. A file that
    /// is not there has no name that is allowed.
    pub(super) fn resolve(&self, name: &str) -> Result<PathBuf, String> {
        let path = self.0.join(name).canonicalize();
        let inside = path.ok().filter(|path| path.starts_with(&self.0));
        // Whether there is a file outside is nobody's business.
        inside.ok_or_else(|| {
            let folder = self.0.display();
            format!("'{name}', a file that is in {folder} is allowed here (--files-under)")
        })
    }
}

#[cfg(test)]
mod tests {
    use std::fs::{create_dir, remove_dir_all, write};
    use std::os::unix::fs::symlink;

    use super::*;

    #[test]
    fn only_what_is_in_the_folder_has_a_name() {
        let base = std::env::temp_dir().join(format!("pollux-files-{}", std::process::id()));
        let folder = base.join("folder");
        for new in [&base, &folder, &folder.join("deeper")] {
            create_dir(new).unwrap();
        }
        for file in ["folder/a", "folder/deeper/b", "outside"] {
            write(base.join(file), "").unwrap();
        }
        symlink(base.join("outside"), folder.join("out")).unwrap();
        symlink("deeper/b", folder.join("in")).unwrap();
        symlink(&folder, base.join("link")).unwrap();

        let files = FilesUnder::new(&base.join("link")).unwrap();
        let folder = folder.canonicalize().unwrap();
        let text = |path: &Path| path.display().to_string();
        let rows = [
            ("a".to_owned(), "a"),
            ("deeper/b".to_owned(), "deeper/b"),
            ("deeper/../a".to_owned(), "a"),
            ("in".to_owned(), "deeper/b"),
            (text(&folder.join("a")), "a"),
            (text(&base.join("link/a")), "a"),
        ];
        for (name, is) in rows {
            assert_eq!(files.resolve(&name), Ok(folder.join(is)), "{name}");
        }
        let outside = text(&base.join("outside"));
        for name in ["out", "../outside", "/etc/passwd", "missing", "", &outside] {
            let found = files.resolve(name);
            match name {
                "" => assert_eq!(
                    found,
                    Ok(folder.clone()),
                    "the folder itself, which is no file"
                ),
                _ => assert!(found.unwrap_err().contains("--files-under"), "{name}"),
            }
        }
        assert!(FilesUnder::new(&folder.join("a")).is_err());
        assert!(FilesUnder::new(&folder.join("missing")).is_err());
        remove_dir_all(base).unwrap();
    }
}
