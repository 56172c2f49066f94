//! `--user`: a server that was started by root, to bind its port, goes on as somebody else.

use std::{
    ffi::CString,
    path::{Path, PathBuf},
};

use anyhow::{Context, bail};
use nix::unistd::{Gid, Uid, User, geteuid, getresgid, getresuid, initgroups, setresgid, setresuid};

use crate::exit::{self, Ended};

/// A user of this machine as whom to serve.
#[derive(Debug)]
pub(super) struct Account {
    name: String,
    uid: Uid,
    gid: Gid,
    home: PathBuf,
}

impl Account {
    /// The user `name`, for root to become.
    pub(super) fn find(name: &str) -> anyhow::Result<Self> {
        let shown = ftpq_proto::Escaped::new(name);
        if !geteuid().is_root() {
            return Err(Ended::with(
                exit::FAILED,
                format!("only root can become {shown}: start ftpq as root, or as {shown} without --user"),
            ));
        }
        let user = User::from_name(name).with_context(|| format!("cannot look the user {shown} up"))?;
        let user = user.ok_or_else(|| Ended::usage(format!("this machine has no user {shown}: make one (useradd)")))?;
        if user.uid.is_root() {
            return Err(Ended::usage(format!("{shown} is root: name a user of fewer rights, or leave --user out")));
        }
        Ok(Self { name: user.name, uid: user.uid, gid: user.gid, home: user.dir })
    }

    /// Makes this process that user's, for good: all of its threads, with the user's groups alone.
    pub(super) fn take_on(&self) -> anyhow::Result<()> {
        let become_them = || {
            initgroups(&CString::new(self.name.as_str())?, self.gid)?;
            // The user last: without root, the groups could not be changed any more.
            setresgid(self.gid, self.gid, self.gid)?;
            setresuid(self.uid, self.uid, self.uid)?;
            anyhow::Ok(())
        };
        become_them().with_context(|| format!("cannot become {}", self.name))?;
        self.check().with_context(|| format!("could not become {} for good", self.name))
    }

    pub(super) fn name(&self) -> &str {
        &self.name
    }

    /// The user's home folder.
    pub(super) fn home(&self) -> &Path {
        &self.home
    }

    /// That nothing of root is left, and nothing leads back.
    fn check(&self) -> anyhow::Result<()> {
        let (users, groups) = (getresuid()?, getresgid()?);
        if [users.real, users.effective, users.saved] != [self.uid; 3]
            || [groups.real, groups.effective, groups.saved] != [self.gid; 3]
        {
            bail!("the process is still somebody else's");
        }
        let root = Uid::from_raw(0);
        if setresuid(root, root, root).is_ok() {
            bail!("it could become root again");
        }
        let wheel = Gid::from_raw(0);
        if self.gid != wheel && setresgid(wheel, wheel, wheel).is_ok() {
            bail!("it could take root's group again");
        }
        Ok(())
    }
}

/// As whom this process runs, for a person.
pub(super) fn current() -> String {
    let uid = geteuid();
    if uid.is_root() {
        return "root, with every right on this machine: --user NAME gives that up".into();
    }
    let name = User::from_uid(uid).ok().flatten().map(|user| user.name);
    name.map_or_else(|| format!("uid {uid}"), |name| ftpq_proto::Escaped::new(&name).to_string())
}
