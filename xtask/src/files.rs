//! Files to transfer, and the proof that they arrived: made, gathered, compared.

use std::{
    collections::BTreeMap,
    ffi::OsString,
    fs::{self, File, FileType},
    io::{Read, Write},
    iter::Sum,
    path::{Path, PathBuf},
    process::Command,
};

use anyhow::{Context, Result, bail};

use crate::scratch::check_interrupted;

/// How many files, how many bytes.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Amount {
    pub(crate) files: u64,
    pub(crate) bytes: u64,
}

impl Sum for Amount {
    fn sum<I: Iterator<Item = Self>>(amounts: I) -> Self {
        amounts.fold(Self::default(), |a, b| Self { files: a.files + b.files, bytes: a.bytes + b.bytes })
    }
}

/// Writes `bytes` random-looking bytes, the same for the same `seed`: nothing on the way can compress them.
pub(crate) fn write_random(file: &Path, bytes: u64, seed: &str) -> Result<()> {
    let mut out = File::create(file)?;
    let mut random = blake3::Hasher::new().update(seed.as_bytes()).finalize_xof();
    let mut block = vec![0; BLOCK];
    let mut left = bytes;
    while left > 0 {
        check_interrupted()?;
        let length = left.min(BLOCK as u64);
        block.truncate(usize::try_from(length)?);
        random.fill(&mut block);
        out.write_all(&block)?;
        left -= length;
    }
    Ok(())
}

/// Makes `target` a folder of real files of this machine, between `least` and `most` of them; returns where they
/// come from. Links and special files are left out, so that all of it can be copied.
pub(crate) fn gather(target: &Path, least: u64, most: Amount) -> Result<String> {
    for source in real_folders() {
        let mut left = most;
        gather_folder(&source, target, &mut left)?;
        if most.files - left.files >= least {
            return Ok(source.display().to_string());
        }
        fs::remove_dir_all(target)?;
    }
    for n in 0..least {
        let folder = target.join(format!("folder {:02}", n % 40));
        fs::create_dir_all(&folder)?;
        write_random(&folder.join(format!("file {n:05}")), n * n % 30_000, &n.to_string())?;
    }
    Ok("made for this".into())
}

/// An error unless both folders hold the same names and the same bytes; how much that was.
pub(crate) fn compare_trees(original: &Path, copy: &Path) -> Result<Amount> {
    let (expected, found) = (tree(original)?, tree(copy)?);
    let different = expected.iter().filter(|(path, kind)| found.get(*path) != Some(*kind)).map(|(path, _)| path);
    let additional = found.keys().filter(|path| !expected.contains_key(*path));
    let mut wrong = different.chain(additional);
    if let Some(first) = wrong.next() {
        bail!("{} and {} more are missing, additional or of another kind", first.display(), wrong.count());
    }
    let files = expected.into_iter().filter(|(_, kind)| kind.is_file());
    files.map(|(path, _)| compare_files(&original.join(&path), &copy.join(&path))).sum()
}

/// An error unless both files hold the same bytes; how much that was.
pub(crate) fn compare_files(original: &Path, copy: &Path) -> Result<Amount> {
    let open = |path: &Path| File::open(path).with_context(|| format!("cannot open {}", path.display()));
    let (a, b) = (open(original)?, open(copy)?);
    let (mut block_a, mut block_b) = (Vec::with_capacity(BLOCK), Vec::with_capacity(BLOCK));
    let mut bytes = 0;
    loop {
        check_interrupted()?;
        block_a.clear();
        block_b.clear();
        (&a).take(BLOCK as u64).read_to_end(&mut block_a)?;
        (&b).take(BLOCK as u64).read_to_end(&mut block_b)?;
        if block_a != block_b {
            bail!("{} is not what {} is, after byte {bytes}", copy.display(), original.display());
        }
        if block_a.is_empty() {
            return Ok(Amount { files: 1, bytes });
        }
        bytes += block_a.len() as u64;
    }
}

const BLOCK: usize = 1024 * 1024;

/// Folders with thousands of files that whoever builds Rust is likely to have.
fn real_folders() -> Vec<PathBuf> {
    let sysroot = Command::new("rustc").args(["--print", "sysroot"]).output().ok();
    let documentation = sysroot
        .and_then(|output| String::from_utf8(output.stdout).ok())
        .map(|path| Path::new(path.trim()).join("share/doc/rust/html"));
    let cargo_home = std::env::var_os("CARGO_HOME").map(PathBuf::from);
    let cargo_home = cargo_home.or_else(|| std::env::home_dir().map(|home| home.join(".cargo")));
    let sources = cargo_home.map(|home| home.join("registry/src"));
    [documentation, sources].into_iter().flatten().filter(|folder| folder.is_dir()).collect()
}

/// Links, or copies where the disk is another, until `left` is used up.
fn gather_folder(source: &Path, target: &Path, left: &mut Amount) -> Result<()> {
    fs::create_dir_all(target)?;
    for (name, kind) in children(source)? {
        check_interrupted()?;
        if left.files == 0 {
            return Ok(());
        }
        let (from, to) = (source.join(&name), target.join(&name));
        if kind.is_dir() {
            gather_folder(&from, &to, left)?;
        } else if kind.is_file() {
            let bytes = from.metadata()?.len();
            // A file that is too large may be followed by one that is not.
            let Some(rest) = left.bytes.checked_sub(bytes) else { continue };
            *left = Amount { files: left.files - 1, bytes: rest };
            if fs::hard_link(&from, &to).is_err() {
                fs::copy(&from, &to)?;
            }
        }
    }
    Ok(())
}

/// Every name under `folder` and what it is.
fn tree(folder: &Path) -> Result<BTreeMap<PathBuf, FileType>> {
    let mut found = BTreeMap::new();
    let mut open = vec![PathBuf::new()];
    while let Some(path) = open.pop() {
        for (name, kind) in children(&folder.join(&path))? {
            let path = path.join(name);
            if kind.is_dir() {
                open.push(path.clone());
            }
            found.insert(path, kind);
        }
    }
    Ok(found)
}

/// In order of their names, so that two runs take the same files.
fn children(folder: &Path) -> Result<BTreeMap<OsString, FileType>> {
    fs::read_dir(folder)
        .with_context(|| format!("cannot list {}", folder.display()))?
        .map(|entry| entry.and_then(|entry| Ok((entry.file_name(), entry.file_type()?))).map_err(Into::into))
        .collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_copy_is_told_from_what_is_none() {
        let folder = tempfile::tempdir().unwrap();
        let (a, b) = (folder.path().join("a"), folder.path().join("b"));
        for root in [&a, &b] {
            fs::create_dir_all(root.join("sub/empty")).unwrap();
            write_random(&root.join("sub/file"), 3_000_000, "same").unwrap();
        }
        assert_eq!(compare_trees(&a, &b).unwrap(), Amount { files: 1, bytes: 3_000_000 });

        write_random(&b.join("sub/file"), 3_000_000, "other").unwrap();
        assert!(compare_trees(&a, &b).is_err());
        write_random(&b.join("sub/file"), 2_999_999, "same").unwrap();
        assert!(compare_trees(&a, &b).is_err());
        write_random(&b.join("sub/file"), 3_000_000, "same").unwrap();
        fs::remove_dir(b.join("sub/empty")).unwrap();
        assert!(compare_trees(&a, &b).is_err());
        assert!(compare_trees(&b, &a).is_err());
    }

    #[test]
    fn gathering_stops_at_the_limit_and_leaves_links_out() {
        let folder = tempfile::tempdir().unwrap();
        let (source, target) = (folder.path().join("source"), folder.path().join("target"));
        fs::create_dir_all(source.join("sub")).unwrap();
        for name in ["1", "2", "sub/3", "sub/4"] {
            write_random(&source.join(name), 1000, name).unwrap();
        }
        std::os::unix::fs::symlink("1", source.join("link")).unwrap();
        let mut left = Amount { files: 3, bytes: 10_000 };
        gather_folder(&source, &target, &mut left).unwrap();
        assert_eq!(left, Amount { files: 0, bytes: 7_000 });
        assert!(target.join("sub/3").exists() && !target.join("sub/4").exists() && !target.join("link").exists());
    }
}
