//! Keys that are taken out of the list, or may do less, while they are in the middle of something.

use std::{
    fs::{self, File},
    os::unix::fs::FileExt,
    path::{Path, PathBuf},
    time::Duration,
};

use super::{KIB, MIB, Torture, oracle::Oracle};
use crate::support::{Program, Random, Relay, Run, Running, Weather, World, as_soon_as, until};

#[test]
fn t24_a_key_that_is_removed_in_the_middle() {
    rounds(
        |_| String::new(),
        |world, eve| {
            world.home_program().args(["clients", "remove", &eve.name]).run().ok();
        },
    );
}

#[test]
fn t24_a_list_that_is_edited_in_the_middle() {
    rounds(
        |_| String::new(),
        |world, eve| {
            // In place. Nobody else's line is away for a moment.
            let left = eve.list_without(world);
            let file = File::options().write(true).open(world.authorized_clients()).unwrap();
            file.write_all_at(left.as_bytes(), 0).unwrap();
            file.set_len(left.len() as u64).unwrap();
        },
    );
}

#[test]
fn t24_a_grant_that_ends_in_the_middle() {
    rounds(|random| format!(" expires={}", in_seconds(random.within(2..4))), |_, _| {});
}

/// A key that is let in no more, in the middle of each activity: by what stands in its line from the start, or by
/// `revoke`.
fn rounds(restriction: impl Fn(&mut Random) -> String, revoke: impl Fn(&World, &Eve)) {
    let mut torture = Torture::of("t24");
    let mut scene = Scene::new(torture.seed);
    for round in torture.rounds(ACTIVITIES.len() as u64, 100) {
        let activity = ACTIVITIES[round as usize % ACTIVITIES.len()];
        let eve = Eve::arrives(&scene.world, round);
        let mut oracle = Oracle::default();
        eve.prepare(&scene.world, activity, &mut oracle, &mut torture.random);
        let honest = scene.honest(&mut torture.random);
        let ends = restriction(&mut torture.random);
        if !ends.is_empty() {
            eve.set_line(&scene.world, &format!("{ALL}{ends}"));
        }
        let mut busy = eve.begin(&scene, activity);
        busy.wait_for_its_moment(&scene, &eve, &mut torture.random);
        revoke(&scene.world, &eve);
        scene.wait_for_cut(&eve, &mut busy);
        let run = busy.end();
        assert_eq!(run.code, 4, "{activity:?}: {run:?}");
        // Nothing of it may succeed that comes after what another client began after it was cut off.
        let seen = scene.barrier();
        scene.is_quiet_in(&eve);
        oracle.check(&eve.folder);
        for args in [&["ls"][..], &["put", "-f", "small", "--to", "/late"], &["get", "-f", "/before", "--to", "late"]] {
            eve.program(&scene.world).args(args).run().ends(4);
        }
        oracle.check(&eve.folder);
        scene.barrier();
        let late: Vec<_> = scene.world.server().log.so_far().drain(seen..).collect();
        assert!(!late.iter().any(|line| line.contains(&eve.tag()) && line.ends_with("  ok")), "{late:#?}");
        assert!(!eve.work.join("fetched").exists() && !eve.work.join("late").exists());
        scene.honest_is_untouched(honest);

        // And in again, where it goes on.
        eve.set_line(&scene.world, ALL);
        eve.again(&scene, activity);
        oracle.all_acknowledged();
        oracle.check(&eve.folder);
        eve.has_what_it_fetched(activity);
        eve.leaves(&scene);
    }
}

/// It connects again by itself, and goes on with what it may still do.
#[test]
fn t24_rights_that_are_taken_away_in_the_middle() {
    let mut torture = Torture::of("t24");
    let mut scene = Scene::new(torture.seed);
    for round in torture.rounds(ACTIVITIES.len() as u64, 100) {
        let activity = ACTIVITIES[round as usize % ACTIVITIES.len()];
        let eve = Eve::arrives(&scene.world, round);
        let mut oracle = Oracle::default();
        eve.prepare(&scene.world, activity, &mut oracle, &mut torture.random);
        let honest = scene.honest(&mut torture.random);
        let visits = eve.visits(&scene.world);
        let mut busy = eve.begin(&scene, activity);
        busy.wait_for_its_moment(&scene, &eve, &mut torture.random);
        // Whoever comes in with the new rights has nothing to be cut off from.
        until("it is let in", || eve.visits(&scene.world) > visits);
        eve.set_line(&scene.world, "list,read");
        scene.wait_for_cut(&eve, &mut busy);
        scene.relay.change(|weather| weather.rate = None);
        let run = busy.end();
        match activity {
            // What is there of it is whole, and nothing more comes.
            Activity::PutTree | Activity::PutLarge => {
                assert!([4, 23].contains(&run.code), "{run:?}");
                assert!(run.stderr.contains(&format!("{} may not write here", eve.name)), "{run:?}");
            }
            Activity::GetLarge => drop(run.ok()),
            // A command that was cut says that trying again may help. Between two, the shell connects again.
            Activity::List => assert!([0, 5].contains(&run.code), "{run:?}"),
            Activity::BetweenConnections => {}
        }
        scene.is_quiet_in(&eve);
        oracle.check(&eve.folder);
        eve.program(&scene.world).arg("ls").run().ok();
        eve.program(&scene.world).args(["put", "small", "--to", "/late"]).run().fails(4, "may not write here");
        oracle.check(&eve.folder);
        eve.has_what_it_fetched(activity);
        scene.honest_is_untouched(honest);
        eve.leaves(&scene);
    }
}

/// What somebody is in the middle of.
#[derive(Clone, Copy, Debug, PartialEq)]
enum Activity {
    PutTree,
    PutLarge,
    GetLarge,
    List,
    BetweenConnections,
}

const ACTIVITIES: [Activity; 5] =
    [Activity::PutTree, Activity::PutLarge, Activity::GetLarge, Activity::List, Activity::BetweenConnections];

const ALL: &str = "list,read,write,delete";

/// A server, a slow line to it, and an honest client beside.
struct Scene {
    world: World,
    relay: Relay,
    served: Oracle,
}

impl Scene {
    fn new(seed: u64) -> Self {
        let world = World::in_memory(512 * MIB);
        let relay = Relay::in_weather(world.server().address, Weather::default(), seed);
        fs::create_dir(world.served().join("honest")).unwrap();
        Self { world, relay, served: Oracle::default() }
    }

    /// A transfer of somebody else that goes on meanwhile, over the same line.
    fn honest(&mut self, random: &mut Random) -> Running {
        let bytes = random.bytes(20 * MIB);
        fs::write(self.world.work().join("honest"), &bytes).unwrap();
        self.served.sending("file", &bytes);
        let put = self.world.client().args(["put", "-f", "honest", "--to", "/honest/file"]);
        put.env("FTPQ_SERVER", self.relay.address.to_string()).spawn()
    }

    fn honest_is_untouched(&mut self, honest: Running) {
        self.relay.change(|weather| weather.rate = None);
        let run = honest.wait().ok();
        assert!(!run.stderr.contains("connecting again"), "{}", run.stderr);
        self.served.all_acknowledged();
        self.served.check(&self.world.served().join("honest"));
    }

    /// Waits until the server says that it has cut it off, or sent it away.
    fn wait_for_cut(&self, eve: &Eve, busy: &mut Busy) {
        let is_cut = |line: &String| line.contains(&eve.tag()) && line.contains("  cut off: ");
        match busy {
            Busy::Transfer(running, _) | Busy::Listing(running) => until("it is cut off", || {
                running.process.has_ended() || self.world.server().log.so_far().iter().any(is_cut)
            }),
            Busy::Idle(last) => until("it is let in no more, or not as it was", || {
                *last = eve.program(&self.world).args(["put", "-f", "before"]).run();
                last.code != 0
            }),
        }
    }

    /// Somebody else does something that began now. Returns how many lines the log has up to there.
    fn barrier(&self) -> usize {
        let is_it = |line: &String| line.contains("tester@") && line.contains("  LIST /honest  ");
        let log = || self.world.server().log.so_far();
        let before = log().iter().filter(|line| is_it(line)).count();
        self.world.ftpq(["ls", "/honest"]).ok();
        until("the log tells of it", || log().iter().filter(|line| is_it(line)).count() > before);
        log().iter().rposition(is_it).expect("it was there") + 1
    }

    /// Waits until what was under way there when it was cut off has come to its end. The folder itself stays open for
    /// as long as a connection does, and what is kept of a large upload for a while.
    fn is_quiet_in(&self, eve: &Eve) {
        let is_kept = |file: &PathBuf| {
            let name = file.strip_prefix(&eve.folder).unwrap_or(file).to_string_lossy();
            name.is_empty() || name.starts_with(".ftpq-")
        };
        let process = &self.world.server().process;
        let is_busy = |file: &PathBuf| file.starts_with(&eve.folder) && !is_kept(file);
        until("nothing is being written there", || !process.open_files().iter().any(is_busy));
    }
}

/// Somebody whose key will not be let in any more.
struct Eve {
    name: String,
    home: PathBuf,
    key: String,
    /// What it sees of the server.
    folder: PathBuf,
    work: PathBuf,
}

impl Eve {
    fn arrives(world: &World, round: u64) -> Self {
        let name = format!("eve-{round}");
        let (home, work, folder) =
            (world.path("homes").join(&name), world.work().join(&name), world.served().join(&name));
        fs::create_dir_all(&work).unwrap();
        fs::create_dir(&folder).unwrap();
        fs::write(work.join("small"), "small").unwrap();
        let key = world.key_of(&home);
        let eve = Self { name, home, key, folder, work };
        eve.set_line(world, ALL);
        eve
    }

    /// Makes this its line in the list, with these rights and whatever follows them, in one step.
    fn set_line(&self, world: &World, rights: &str) {
        let (others, key, name) = (self.list_without(world), &self.key, &self.name);
        world.set_clients(&format!("{others}{key} name={name} root=/{name} rights={rights}\n"));
    }

    /// All lines of the list but its own.
    fn list_without(&self, world: &World) -> String {
        let list = fs::read_to_string(world.authorized_clients()).unwrap();
        list.lines().filter(|line| !line.contains(&self.key)).flat_map(|line| [line, "\n"]).collect()
    }

    /// How its lines in the log begin, behind the time.
    fn tag(&self) -> String {
        format!("  {}@", self.name)
    }

    /// How often it was let in.
    fn visits(&self, world: &World) -> usize {
        self.commands(world, "  CON  ")
    }

    /// How often it has listed a folder.
    fn listings(&self, world: &World) -> usize {
        self.commands(world, "  LIST ")
    }

    fn commands(&self, world: &World, verb: &str) -> usize {
        let is_it = |line: &&String| line.contains(&self.tag()) && line.contains(verb);
        world.server().log.so_far().iter().filter(is_it).count()
    }

    fn program(&self, world: &World) -> Program {
        world.client_of(&self.home).folder(&self.work).arg("--accept-new")
    }

    /// Something that was acknowledged, and what is to be moved.
    fn prepare(&self, world: &World, activity: Activity, oracle: &mut Oracle, random: &mut Random) {
        let mut file = |folder: &Path, name: &str, len: u64, oracle: &mut Oracle| {
            let bytes = random.bytes(len);
            fs::create_dir_all(folder.join(name).parent().unwrap()).unwrap();
            fs::write(folder.join(name), &bytes).unwrap();
            oracle.sending(name, &bytes);
        };
        file(&self.work, "before", 100 * KIB, oracle);
        self.program(world).args(["put", "before"]).run().ok();
        oracle.acknowledged("before");
        match activity {
            Activity::PutTree => {
                (0..80).for_each(|number| file(&self.work, &format!("tree/{number}"), 300 * KIB, oracle));
            }
            Activity::PutLarge => file(&self.work, "large", 24 * MIB, oracle),
            Activity::GetLarge => {
                file(&self.folder, "large", 24 * MIB, oracle);
                oracle.acknowledged("large");
            }
            Activity::List | Activity::BetweenConnections => {}
        }
    }

    /// On a line that is too slow for the end to come before it is cut off.
    fn begin(&self, scene: &Scene, activity: Activity) -> Busy {
        scene.relay.change(|weather| weather.rate = Some(3 * MIB));
        let program = self.program(&scene.world).env("FTPQ_SERVER", scene.relay.address.to_string());
        match activity {
            Activity::List => Busy::Listing(program.args(["shell", "-b", "-"]).input("ls\n".repeat(20_000)).spawn()),
            Activity::BetweenConnections => Busy::Idle(self.program(&scene.world).arg("ls").run().ok()),
            _ => Busy::Transfer(program.args(self.args(activity)).spawn(), 4 * MIB),
        }
    }

    fn args(&self, activity: Activity) -> &'static [&'static str] {
        match activity {
            Activity::PutTree => &["put", "-f", "-r", "tree"],
            Activity::PutLarge => &["put", "-f", "large"],
            Activity::GetLarge => &["get", "-f", "/large", "--to", "fetched"],
            Activity::List | Activity::BetweenConnections => &["ls"],
        }
    }

    /// Does it once more, to the end.
    fn again(&self, scene: &Scene, activity: Activity) {
        self.program(&scene.world).args(self.args(activity)).run().ok();
    }

    fn has_what_it_fetched(&self, activity: Activity) {
        if activity == Activity::GetLarge {
            assert!(fs::read(self.work.join("fetched")).unwrap() == fs::read(self.folder.join("large")).unwrap());
        }
    }

    /// Frees the memory that its files take.
    fn leaves(self, scene: &Scene) {
        scene.is_quiet_in(&self);
        fs::remove_dir_all(&self.folder).unwrap();
        fs::remove_dir_all(&self.work).unwrap();
    }
}

/// What it is doing.
enum Busy {
    /// Something of which its moment comes before it has moved so many bytes.
    Transfer(Running, u64),
    /// One command after the other.
    Listing(Running),
    /// Nothing, having done this.
    Idle(Run),
}

impl Busy {
    fn wait_for_its_moment(&mut self, scene: &Scene, eve: &Eve, random: &mut Random) {
        match self {
            Busy::Transfer(running, most) => {
                let moment = random.within(0..*most);
                let process = &mut running.process;
                let before = process.bytes_read() + process.bytes_written();
                as_soon_as("it has come so far", || {
                    process.has_ended() || process.bytes_read() + process.bytes_written() - before >= moment
                });
            }
            // What it reads and writes begins with the batch: only the server knows how far it has come.
            Busy::Listing(running) => {
                let (before, moment) = (eve.listings(&scene.world), random.within(1..50) as usize);
                until("it is among its commands", || {
                    running.process.has_ended() || eve.listings(&scene.world) >= before + moment
                });
            }
            Busy::Idle(_) => {}
        }
    }

    fn end(self) -> Run {
        match self {
            Busy::Transfer(running, _) | Busy::Listing(running) => running.wait(),
            Busy::Idle(run) => run,
        }
    }
}

/// A moment as the list has it.
fn in_seconds(seconds: u64) -> String {
    (jiff::Timestamp::now() + Duration::from_secs(seconds)).to_string()
}
