//! One set of rights: a server, its user, what the user is shown, and what nobody may come near.

use std::{collections::BTreeMap, fmt, fs, path::PathBuf};

use ftpq_handler::Rights;
use ftpq_proto::{Digest, Status};
use ftpq_storage::{LocalFs, Opened, Storage};
use ftpq_transport::Identity;
use futures_util::future::join_all;

use super::{
    client::Client,
    model::{Answer, Folder, Order, Typed, carry_out},
    paths, secret, tree,
};
use crate::support::{TestServer, remote};

/// A server with one user.
pub(super) struct World {
    server: TestServer,
    identity: Identity,
    rights: Rights,
    /// The folder that is all that the user sees; `None` where it is all that is served.
    root: Option<&'static str>,
    /// Whether two uploads by extents were begun.
    going_on: bool,
    client: Client,
    /// Where it is that the user is shown.
    shown: PathBuf,
    tree: Folder,
    /// What is out of reach, and where.
    others: Vec<(PathBuf, Folder)>,
    seen: Seen,
}

/// How often which order went how.
pub(super) type Seen = BTreeMap<(String, Result<(), u32>), usize>;

impl World {
    pub(super) async fn new(rights: Rights, root: Option<&'static str>, going_on: bool) -> Self {
        let server = TestServer::start_in_memory().await;
        let shown = server.path(root.unwrap_or_default().trim_start_matches('/'));
        let beside = shown.parent().unwrap().join("bob");
        let others = vec![(beside, secret()), (server.outside("outside"), secret())];
        for (folder, holds) in &others {
            fs::create_dir(folder).unwrap();
            holds.write(folder);
        }
        fs::create_dir_all(&shown).unwrap();
        let identity = Identity::generate().unwrap();
        server.authorise(&identity, "name=alice rights=list");
        let session = server.session(&identity).await;
        let nothing = Digest::from([0; 32]);
        let client = Client { session, version: nothing.into(), begun: [[0; 32].into(); 2] };
        let tree = tree(server.outside("outside").to_str().unwrap());
        let mut world =
            Self { server, identity, rights, root, going_on, client, shown, tree, others, seen: Seen::new() };
        world.restore().await;
        world.connect().await;
        world
    }

    /// Tries all `orders` with every path.
    pub(super) async fn run(mut self, orders: &[Order]) -> Seen {
        let outside = self.server.outside("outside");
        for typed in paths(outside.to_str().unwrap()) {
            if self.rights == Rights::NONE {
                // Whom the server does not know is not connected for long.
                self.connect().await;
            }
            let cases = orders.iter().map(|&order| self.case(order, &typed));
            let (changing, others): (Vec<_>, Vec<_>) = cases.partition(|case| case.after.is_some());
            self.side_by_side(&others, &typed).await;
            for case in &changing {
                let outcome = self.client.carry_out(case.order, &typed).await;
                self.compare(case, outcome);
                self.look(case.after.as_ref().unwrap(), std::slice::from_ref(case));
                self.restore().await;
            }
        }
        self.seen
    }

    /// What should change nothing. But a part that is being written is not there.
    async fn side_by_side(&mut self, cases: &[Case], typed: &Typed) {
        let alone = self.going_on;
        let may_meet = |one: &Case, other: &Case| !alone || one.order.verb() == other.order.verb();
        for together in cases.chunk_by(may_meet) {
            let outcomes = join_all(together.iter().map(|case| self.client.carry_out(case.order, typed))).await;
            for (case, outcome) in together.iter().zip(outcomes) {
                self.compare(case, outcome);
            }
        }
        self.look(&self.tree, cases);
    }

    fn case(&self, order: Order, typed: &Typed) -> Case {
        let (expected, after) = carry_out(&self.tree, self.rights, order, typed);
        let path = String::from_utf8_lossy(&typed.path);
        let what = format!("{order:?} of {path:.100?} in {} with {}", typed.cwd, self.rights);
        Case { what, order, expected, after }
    }

    fn compare(&mut self, case: &Case, outcome: Result<Answer, Status>) {
        let Case { what, order, expected, .. } = case;
        assert!(outcome == *expected, "{what}: {}, not {}", short(&outcome), short(expected));
        let key = (format!("{order:?}"), outcome.map(drop).map_err(Status::code));
        *self.seen.entry(key).or_default() += 1;
    }

    /// What is on disk after these cases.
    fn look(&self, expected: &Folder, cases: &[Case]) {
        let what = || cases.iter().map(|case| &*case.what).collect::<Vec<_>>().join("\n");
        let found = Folder::read(&self.shown);
        assert!(found == *expected, "{}: on disk is {found:#?}, not {expected:#?}", what());
        for (folder, holds) in &self.others {
            assert!(Folder::read(folder) == *holds, "{}: {} was changed", what(), folder.display());
        }
    }

    /// As it was in the beginning.
    async fn restore(&mut self) {
        self.tree.staged = 0;
        self.tree.write(&self.shown);
        if self.going_on {
            // What was begun stays begun, whatever becomes of the rights.
            self.give(Rights::ALL);
            self.connect().await;
            self.client.begin_uploads().await;
            self.tree.staged = 2;
        }
        self.give(self.rights);
        // A change of rights ends what is connected.
        if self.going_on {
            self.connect().await;
        }
        let files = LocalFs::open(&self.shown).unwrap();
        let Opened::Large(info) = files.open_up_to(&remote("large"), 0).await.unwrap() else { panic!("not large") };
        self.client.version = info.version;
    }

    /// In one step: between its old line and its new one the user would be a stranger.
    fn give(&self, rights: Rights) {
        let key = self.identity.fingerprint();
        let root = self.root.map(|root| format!(" root={root}")).unwrap_or_default();
        let line = format!("{key} name=alice rights={rights}{root}\n");
        self.server.set_list(if rights == Rights::NONE { "# nobody\n" } else { &line });
    }

    async fn connect(&mut self) {
        self.client.session = self.server.session(&self.identity).await;
    }
}

/// One order with one path, and what should come of it.
struct Case {
    what: String,
    order: Order,
    expected: Result<Answer, Status>,
    /// What the user is shown afterwards, if that is something else.
    after: Option<Folder>,
}

fn short(outcome: &impl fmt::Debug) -> String {
    format!("{outcome:?}").chars().take(500).collect()
}
