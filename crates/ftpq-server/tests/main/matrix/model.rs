//! What a server should do, said a second time: a tree in memory, and the rules. Nothing in here opens a
//! file or asks the code that is tested.

use std::collections::BTreeMap;

use ftpq_proto::{Kind, Right, Rights, Status, limits::EXTENT_MIN};

/// Bytes of every large file in these tests: two extents, the second of which is [`TAIL`].
pub(super) const BIG: u64 = EXTENT_MIN + TAIL.len() as u64;

/// The end of every large file; what is before it is a hole.
pub(super) const TAIL: &[u8] = b"tail\n";

/// What every upload in one go carries.
pub(super) const UPLOADED: &[u8] = b"uploaded";

/// What a link is made to hold.
pub(super) const TARGET: &[u8] = b"f";

/// And what it must not hold, wherever it is.
pub(super) const WAY_OUT: &[u8] = b"../../../../../../../../../../../../../../../../../../../../../../../../f";

/// One thing on disk.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Node {
    File(Vec<u8>),
    /// Of so many bytes, which are not looked at.
    Large(u64),
    Folder(Folder),
    Link(Vec<u8>),
    Fifo,
}

/// A folder with all that it holds.
#[derive(Clone, Debug, Default, PartialEq)]
pub(super) struct Folder {
    pub(super) mode: u32,
    pub(super) names: BTreeMap<Vec<u8>, Node>,
    /// How many uploads by extents are kept in it, under names that nobody sees or foresees.
    pub(super) staged: usize,
}

/// What a client asks for, apart from the path.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Order {
    Con,
    List,
    Cd,
    Stat,
    Dwld,
    /// Small files alone.
    DwldUpTo,
    Upld {
        overwrite: bool,
        parents: bool,
    },
    /// A file with these contents may be there already.
    UpldSame(&'static [u8]),
    Begin {
        overwrite: bool,
        parents: bool,
    },
    Write(Upload),
    Prove(Upload),
    Commit(Upload),
    Read,
    ReadDigest,
    Mkdir {
        parents: bool,
    },
    Link {
        target: &'static [u8],
        overwrite: bool,
    },
    Attr(u32),
    /// To `/moved`.
    MvFrom,
    MvFile {
        overwrite: bool,
    },
    MvFolder {
        overwrite: bool,
    },
    Rm {
        recursive: bool,
    },
}

/// An upload by extents that was begun by the same client.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(super) enum Upload {
    /// Of `/new`.
    New,
    /// Of `/f`, which it replaces.
    Replacing,
    /// By nobody.
    Unknown,
}

/// A path as it is sent, and the folder from which it leads.
#[derive(Clone, Debug)]
pub(super) struct Typed {
    pub(super) cwd: &'static str,
    pub(super) path: Vec<u8>,
}

/// What a server answers if it does what it was asked.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Answer {
    Welcome(Rights),
    /// The path where it was done, as the server calls it.
    At(String),
    Moved(String, String),
    Removed(u64),
    Shown(Vec<Shown>),
    Body(Vec<u8>),
    /// Of the last extent.
    TailDigest,
    TooLargeToSend,
    Committed {
        at: String,
        length: u64,
    },
    Begun,
    Written,
    Proved(bool),
}

/// What LIST and STAT show that can be known beforehand.
#[derive(Clone, Debug, PartialEq)]
pub(super) struct Shown {
    pub(super) name: Option<Vec<u8>>,
    pub(super) kind: Kind,
    pub(super) size: u64,
    pub(super) target: Option<Vec<u8>>,
}

type Names = Vec<Vec<u8>>;

impl Order {
    /// The right without which nothing is even looked at.
    fn declared(self) -> Option<Right> {
        match self {
            Order::Con => None,
            Order::List | Order::Cd | Order::Stat => Some(Right::List),
            Order::Dwld | Order::DwldUpTo | Order::Read | Order::ReadDigest => Some(Right::Read),
            Order::Rm { .. } => Some(Right::Delete),
            _ => Some(Right::Write),
        }
    }

    /// Whether it takes away what was there: then it needs the right to delete, too.
    fn takes_away(self, path: &Names) -> bool {
        match self {
            Order::Upld { overwrite, .. } | Order::Begin { overwrite, .. } | Order::Link { overwrite, .. } => overwrite,
            Order::Attr(mode) => path.is_empty() || mode & 0o700 != 0o700 || mode & 0o002 != 0,
            Order::MvFrom | Order::MvFile { .. } | Order::MvFolder { .. } => true,
            // Another path names no upload.
            Order::Commit(Upload::Replacing) => is(path, "f"),
            _ => false,
        }
    }

    fn is_mv(self) -> bool {
        matches!(self, Order::MvFrom | Order::MvFile { .. } | Order::MvFolder { .. })
    }
}

/// What a user with `rights` gets to hear, of a server that shows it `tree`; and the tree afterwards, if that is
/// another.
pub(super) fn carry_out(
    tree: &Folder,
    rights: Rights,
    order: Order,
    typed: &Typed,
) -> (Result<Answer, Status>, Option<Folder>) {
    let path = match admitted(rights, order, typed) {
        Ok(_) if order == Order::Con => return (Ok(Answer::Welcome(rights)), None),
        Ok(path) => path,
        Err(status) => return (Err(status), None),
    };
    let mut after = tree.clone();
    let outcome = after.act(order, path);
    let changed = outcome.is_ok() && after != *tree;
    (outcome, changed.then_some(after))
}

/// The path, if the user may do that there.
fn admitted(rights: Rights, order: Order, typed: &Typed) -> Result<Names, Status> {
    // A line without a right counts for nothing.
    if rights == Rights::NONE {
        return Err(Status::NotAuthorised);
    }
    let require = |right| if rights.contains(right) { Ok(()) } else { Err(Status::Forbidden) };
    order.declared().map_or(Ok(()), require)?;
    if order == Order::Con {
        return Ok(Names::new());
    }
    if typed.path.len() > 4095 || typed.path.contains(&0) {
        return Err(Status::BadArguments);
    }
    if order.is_mv() {
        require(Right::Delete)?;
    }
    let path = typed.leads_to()?;
    if order.takes_away(&path) {
        require(Right::Delete)?;
    }
    Ok(path)
}

impl Typed {
    fn leads_to(&self) -> Result<Names, Status> {
        let split = |bytes: &[u8]| bytes.split(|&byte| byte == b'/').map(<[u8]>::to_vec).collect::<Names>();
        let mut parts = if self.path.starts_with(b"/") { Names::new() } else { split(self.cwd.as_bytes()) };
        parts.extend(split(&self.path));
        let mut path = Names::new();
        for part in parts {
            match &*part {
                b"" | b"." => {}
                b".." => drop(path.pop()),
                name if name.len() > 255 || path.len() == 256 => return Err(Status::BadPath),
                _ => path.push(part),
            }
        }
        Ok(path)
    }
}

impl Folder {
    fn act(&mut self, order: Order, path: Names) -> Result<Answer, Status> {
        let at = Answer::At(shown(&path));
        match order {
            Order::Con => unreachable!("needs no tree"),
            Order::List => Ok(Answer::Shown(self.list(&path)?)),
            Order::Cd if self.stat(&path)?.kind != Kind::Folder => Err(Status::NotFolder),
            Order::Cd => Ok(at),
            Order::Stat => Ok(Answer::Shown(vec![self.stat(&path)?])),
            Order::Dwld => self.file_at(&path).map(|file| Answer::Body(file.contents())),
            Order::DwldUpTo => match self.file_at(&path)? {
                Node::Large(_) => Ok(Answer::TooLargeToSend),
                file => Ok(Answer::Body(file.contents())),
            },
            Order::Read | Order::ReadDigest => match self.file_at(&path)? {
                Node::Large(_) if order == Order::ReadDigest => Ok(Answer::TailDigest),
                Node::Large(_) => Ok(Answer::Body(TAIL.to_vec())),
                _ => Err(Status::Changed),
            },
            Order::Upld { overwrite, parents } => {
                self.fill(&path, overwrite, parents, Node::File(UPLOADED.to_vec()))?;
                Ok(committed(&path, UPLOADED.len() as u64))
            }
            Order::UpldSame(contents) => {
                let file = Node::File(contents.to_vec());
                match self.fill(&path, false, false, file.clone()) {
                    Err(Status::Exists) if self.get(&path) == Some(&file) => {}
                    filled => filled?,
                }
                Ok(committed(&path, contents.len() as u64))
            }
            Order::Begin { overwrite, parents } => {
                // It must be possible, and does not happen yet.
                self.clone().fill(&path, overwrite, parents, Node::Large(BIG))?;
                self.make_above(&path, parents)?;
                let (folder, _) = self.parent_of(&path)?.expect("a name");
                folder.staged += 1;
                Ok(Answer::Begun)
            }
            Order::Write(upload) => upload.find(&path).map(|()| Answer::Written),
            Order::Prove(upload) => upload.find(&path).map(|()| Answer::Proved(true)),
            Order::Commit(upload) => {
                upload.find(&path)?;
                self.staged -= 1;
                self.names.insert(path[0].clone(), Node::Large(BIG));
                Ok(committed(&path, BIG))
            }
            Order::Mkdir { parents: true } => self.make_all(&path).map(|()| at),
            Order::Mkdir { parents: false } if path.is_empty() => Err(Status::BadPath),
            Order::Mkdir { parents: false } => match self.put(&path, empty()) {
                Err(Status::IsFolder) => Err(Status::Exists),
                made => made.map(|()| at),
            },
            Order::Link { target: WAY_OUT, .. } if !path.is_empty() => Err(Status::BadPath),
            Order::Link { target, overwrite } => {
                self.fill(&path, overwrite, false, Node::Link(target.to_vec())).map(|()| at)
            }
            Order::Attr(mode) => {
                self.folder_at(&path)?.mode = mode;
                Ok(at)
            }
            Order::MvFrom => self.rename(path, vec![b"moved".to_vec()], false),
            Order::MvFile { overwrite } => self.rename(vec![b"f".to_vec()], path, overwrite),
            Order::MvFolder { overwrite } => self.rename(vec![b"d".to_vec()], path, overwrite),
            Order::Rm { recursive } => self.remove(&path, recursive).map(Answer::Removed),
        }
    }

    /// The folder at `path`. A link is none, and nothing is behind it.
    fn folder_at(&mut self, path: &[Vec<u8>]) -> Result<&mut Folder, Status> {
        if path.iter().any(|name| is_reserved(name)) {
            return Err(Status::NameRefused);
        }
        let mut folder = self;
        for (depth, name) in path.iter().enumerate() {
            folder = match folder.names.get_mut(name) {
                None => return Err(Status::NotFound),
                Some(Node::Folder(next)) => next,
                Some(Node::Link(_)) if depth + 1 < path.len() => return Err(Status::NotRegular),
                Some(_) => return Err(Status::NotFolder),
            };
        }
        Ok(folder)
    }

    /// The folder in which `path` is a name, and the name. Of the root, `None`.
    fn parent_of<'a>(&mut self, path: &'a [Vec<u8>]) -> Result<Option<(&mut Folder, &'a Vec<u8>)>, Status> {
        let Some((name, above)) = path.split_last() else { return Ok(None) };
        if is_reserved(name) {
            return Err(Status::NameRefused);
        }
        Ok(Some((self.folder_at(above)?, name)))
    }

    fn get(&mut self, path: &[Vec<u8>]) -> Option<&Node> {
        let (folder, name) = self.parent_of(path).ok()??;
        folder.names.get(name)
    }

    /// A regular file to be read.
    fn file_at(&mut self, path: &[Vec<u8>]) -> Result<Node, Status> {
        let Some((name, above)) = path.split_last() else { return Err(Status::IsFolder) };
        if is_reserved(name) {
            return Err(Status::NameRefused);
        }
        // Of a link on the way it says so, even of the last before the name.
        let behind_link = matches!(self.get(above), Some(Node::Link(_)));
        let folder = match self.folder_at(above) {
            Err(Status::NotFolder) if behind_link => return Err(Status::NotRegular),
            found => found?,
        };
        match folder.names.get(name) {
            None => Err(Status::NotFound),
            Some(Node::Folder(_)) => Err(Status::IsFolder),
            Some(Node::Link(_) | Node::Fifo) => Err(Status::NotRegular),
            Some(file) => Ok(file.clone()),
        }
    }

    fn stat(&mut self, path: &[Vec<u8>]) -> Result<Shown, Status> {
        match self.parent_of(path)? {
            None => Ok(Shown { name: None, kind: Kind::Folder, size: 0, target: None }),
            Some((folder, name)) => folder.names.get(name).map(|node| node.shown(name)).ok_or(Status::NotFound),
        }
    }

    fn list(&mut self, path: &[Vec<u8>]) -> Result<Vec<Shown>, Status> {
        match self.folder_at(path) {
            Ok(folder) => {
                let visible = folder.names.iter().filter(|(name, _)| !is_reserved(name));
                Ok(visible.map(|(name, node)| node.shown(name)).collect())
            }
            Err(Status::NotFolder) => Ok(vec![self.stat(path)?]),
            Err(status) => Err(status),
        }
    }

    /// Puts a file or link at `path`.
    fn fill(&mut self, path: &Names, overwrite: bool, parents: bool, node: Node) -> Result<(), Status> {
        if path.is_empty() {
            return Err(Status::IsFolder);
        }
        self.make_above(path, parents)?;
        match self.put(path, node.clone()) {
            Err(Status::Exists) if overwrite => {
                let (folder, name) = self.parent_of(path)?.expect("a name");
                folder.names.insert(name.clone(), node);
                Ok(())
            }
            done => done,
        }
    }

    fn make_above(&mut self, path: &Names, parents: bool) -> Result<(), Status> {
        match self.parent_of(path) {
            Err(Status::NotFound) if parents => self.make_all(&path[..path.len() - 1]),
            _ => Ok(()),
        }
    }

    /// Puts something where nothing is.
    fn put(&mut self, path: &[Vec<u8>], node: Node) -> Result<(), Status> {
        let (folder, name) = self.parent_of(path)?.expect("a name");
        match folder.names.get(name) {
            Some(Node::Folder(_)) => Err(Status::IsFolder),
            Some(_) => Err(Status::Exists),
            None => {
                folder.names.insert(name.clone(), node);
                Ok(())
            }
        }
    }

    fn make_all(&mut self, path: &[Vec<u8>]) -> Result<(), Status> {
        match self.folder_at(path) {
            Err(Status::NotFound) => {}
            found => return found.map(drop),
        }
        for depth in 1..=path.len() {
            match self.put(&path[..depth], empty()) {
                Err(Status::IsFolder) => {}
                made => made?,
            }
        }
        Ok(())
    }

    fn remove(&mut self, path: &[Vec<u8>], recursive: bool) -> Result<u64, Status> {
        let Some((folder, name)) = self.parent_of(path)? else { return Err(Status::BadPath) };
        let count = match folder.names.get(name) {
            None => return Err(Status::NotFound),
            Some(node) if recursive => node.count(),
            // Names that nobody sees keep no folder from being empty.
            Some(Node::Folder(full)) if full.names.keys().any(|name| !is_reserved(name)) => {
                return Err(Status::NotEmpty);
            }
            Some(_) => 1,
        };
        folder.names.remove(name);
        Ok(count)
    }

    fn rename(&mut self, from: Names, mut to: Names, overwrite: bool) -> Result<Answer, Status> {
        match self.folder_at(&to) {
            Ok(_) => to.extend(from.last().cloned()),
            Err(Status::NotFound | Status::NotFolder | Status::NotRegular) => {}
            Err(status) => return Err(status),
        }
        let moved = Answer::Moved(shown(&from), shown(&to));
        let (folder, name) = self.parent_of(&from)?.ok_or(Status::BadPath)?;
        let node = folder.names.get(name).cloned();
        let (folder, name) = self.parent_of(&to)?.ok_or(Status::BadPath)?;
        let node = node.ok_or(Status::NotFound)?;
        let in_the_way = folder.names.get(name);
        match (&node, in_the_way) {
            (_, Some(_)) if !overwrite => return Err(Status::Exists),
            _ if from == to => return Ok(moved),
            (Node::Folder(_), _) if to.starts_with(&from) => return Err(Status::BadPath),
            (Node::Folder(_), Some(Node::Folder(full))) if !full.names.is_empty() => return Err(Status::NotEmpty),
            (Node::Folder(_), Some(Node::Folder(_)) | None) => {}
            (Node::Folder(_), Some(_)) => return Err(Status::NotFolder),
            (_, Some(Node::Folder(_))) => return Err(Status::IsFolder),
            _ => {}
        }
        folder.names.insert(name.clone(), node);
        let (folder, name) = self.parent_of(&from)?.expect("it was there");
        folder.names.remove(name);
        Ok(moved)
    }
}

impl Node {
    fn shown(&self, name: &[u8]) -> Shown {
        let (kind, size, target) = match self {
            Node::File(contents) => (Kind::File, contents.len() as u64, None),
            Node::Large(size) => (Kind::File, *size, None),
            Node::Folder(_) => (Kind::Folder, 0, None),
            Node::Link(target) => (Kind::Link, 0, Some(target.clone())),
            Node::Fifo => (Kind::Other, 0, None),
        };
        Shown { name: Some(name.to_vec()), kind, size, target }
    }

    fn contents(&self) -> Vec<u8> {
        match self {
            Node::File(contents) => contents.clone(),
            Node::Large(_) => [&*vec![0; EXTENT_MIN as usize], TAIL].concat(),
            other => unreachable!("{other:?} is no file"),
        }
    }

    /// How many things it is.
    fn count(&self) -> u64 {
        match self {
            Node::Folder(folder) => 1 + folder.names.values().map(Node::count).sum::<u64>(),
            _ => 1,
        }
    }
}

impl Upload {
    /// It is known by its name at its path alone.
    fn find(self, path: &Names) -> Result<(), Status> {
        match self {
            Upload::New if is(path, "new") => Ok(()),
            Upload::Replacing if is(path, "f") => Ok(()),
            _ => Err(Status::NoUpload),
        }
    }
}

fn is(path: &Names, name: &str) -> bool {
    path.len() == 1 && path[0] == name.as_bytes()
}

fn shown(path: &Names) -> String {
    format!("/{}", path.iter().map(|name| String::from_utf8_lossy(name)).collect::<Vec<_>>().join("/"))
}

fn committed(path: &Names, length: u64) -> Answer {
    Answer::Committed { at: shown(path), length }
}

/// A folder as they are made.
fn empty() -> Node {
    Node::Folder(Folder { mode: super::disk::folder_mode(), ..Folder::default() })
}

/// A name that ftpq keeps for itself.
pub(super) fn is_reserved(name: &[u8]) -> bool {
    let hex = |byte: &u8| byte.is_ascii_digit() || (b'a'..=b'f').contains(byte);
    name.strip_prefix(b".ftpq-").is_some_and(|rest| rest.len() == 32 && rest.iter().all(hex))
}
