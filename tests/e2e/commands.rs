//! Every command but the two that move files, one shot each.

use std::{fs, os::unix::fs::PermissionsExt};

use crate::support::{SumServer, World, fifo, holds, odd_names, pattern};

/// A server with a few things on it.
fn furnished() -> World {
    let world = World::serving();
    fs::create_dir_all(world.served().join("folder/inner")).unwrap();
    fs::write(world.served().join("file.txt"), "hello").unwrap();
    fs::write(world.served().join(".hidden"), "x").unwrap();
    fs::write(world.served().join("folder/inside"), pattern(2000)).unwrap();
    world
}

#[test]
fn con_says_who_you_are_and_what_you_may_do() {
    let world = furnished();
    let run = world.ftpq(["con"]).ok();
    for line in [
        format!("server   {} (ftpq/", world.server().name()),
        format!("key      {}", world.server().key),
        format!("you      tester ({})", world.key_of(&world.home())),
        "rights   list,read,write,delete,admin".into(),
        "verbs    ATTR BEGIN CD COMMIT CON DWLD LINK LIST MKDIR MV PROVE READ RM STAT UPLD WRITE".into(),
        "folder   /".into(),
    ] {
        assert!(run.lines().iter().any(|found| found.starts_with(&line)), "{line:?} in {}", run.stdout);
    }
    let json = world.ftpq(["con", "--json"]).ok().json();
    let [welcome] = json.as_slice() else { panic!("{json:?}") };
    assert_eq!(welcome["server_key"], world.server().key);
    assert_eq!(welcome["user"], "tester");
    assert_eq!(welcome["rights"].as_array().unwrap().len(), 5);
    assert!(welcome["verbs"].as_array().unwrap().iter().any(|spec| spec["verb"] == "UPLD"), "{welcome}");
}

/// After `con HOST` no server need be named, in any later process.
#[test]
fn con_is_remembered_by_later_processes() {
    let world = furnished();
    world.home_program().arg("ls").run().fails(2, "ftpq con HOST");
    world.home_program().args(["con", &world.server().name()]).run().ok();
    assert_eq!(world.home_program().arg("ls").run().ok().lines(), ["file.txt", "folder/"]);
    let pwd = world.home_program().arg("pwd").run().ok().stdout;
    assert_eq!(pwd.trim(), format!("{}:/", world.server().name()));
}

#[test]
fn ls_shows_names_sorted_and_hides_dot_files() {
    let world = furnished();
    assert_eq!(world.ftpq(["ls"]).ok().lines(), ["file.txt", "folder/"]);
    assert_eq!(world.ftpq(["ls", "-a"]).ok().lines(), [".hidden", "file.txt", "folder/"]);
    assert_eq!(world.ftpq(["ls", "folder"]).ok().lines(), ["inner/", "inside"]);
    assert_eq!(world.ftpq(["list", "folder"]).ok().lines(), ["inner/", "inside"]);
}

#[test]
fn ls_of_one_file_shows_that_file() {
    let world = furnished();
    assert_eq!(world.ftpq(["ls", "file.txt"]).ok().lines(), ["file.txt"]);
    // Who names it wants to see it.
    assert_eq!(world.ftpq(["ls", ".hidden"]).ok().lines(), [".hidden"]);
    let json = world.ftpq(["ls", "--json", "folder/inside"]).ok().json();
    assert_eq!((&json[0]["name"], &json[0]["size"]), (&"inside".into(), &2000.into()));
}

/// A folder that holds nothing but a file of its own name is listed with the same bytes as a file.
#[test]
fn ls_tells_a_file_from_a_folder_that_holds_its_name() {
    let world = furnished();
    fs::create_dir_all(world.served().join("x/x")).unwrap();
    fs::write(world.served().join("x/x/x"), "x").unwrap();
    fs::create_dir_all(world.served().join(".y")).unwrap();
    fs::write(world.served().join(".y/.y"), "y").unwrap();
    let paths = |path: &str| {
        let entries = world.ftpq(["ls", "--json", path]).ok().json();
        entries.iter().map(|entry| entry["path"].as_str().unwrap().to_owned()).collect::<Vec<_>>()
    };
    assert_eq!(paths("file.txt"), ["/file.txt"]);
    assert_eq!(paths("folder/inside"), ["/folder/inside"]);
    assert_eq!(paths("x/x/x"), ["/x/x/x"]);
    assert_eq!(paths("x/x"), ["/x/x/x"]);
    assert_eq!(paths("x"), ["/x/x"]);
    assert_eq!(world.ftpq(["ls", "-R", "x"]).ok().stdout, "/x:\nx/\n\n/x/x:\nx\n\n");
    assert_eq!(world.ftpq(["ls", ".y/.y"]).ok().lines(), [".y"]);
    assert_eq!(world.ftpq(["ls", ".y"]).ok().stdout, "");
    assert_eq!(world.ftpq(["ls", "-a", ".y"]).ok().lines(), [".y"]);
}

#[test]
fn ls_of_a_link_or_a_fifo_shows_it_hidden_or_not() {
    let world = furnished();
    std::os::unix::fs::symlink("folder", world.served().join("link")).unwrap();
    std::os::unix::fs::symlink("nowhere", world.served().join(".link")).unwrap();
    fifo(&world.served().join(".fifo"));
    for (path, shown) in [("link", "link@"), (".link", ".link@"), (".fifo", ".fifo=")] {
        assert_eq!(world.ftpq(["ls", path]).ok().lines(), [shown]);
        assert_eq!(world.ftpq(["ls", "--json", path]).ok().json()[0]["path"], format!("/{path}"));
    }
}

/// `ftpq con | head -1`: whoever reads has had enough.
#[test]
fn a_standard_output_that_nobody_reads_is_no_failure() {
    let world = furnished();
    for args in [
        &["con"][..],
        &["con", "--json"],
        &["ls"],
        &["ls", "-l"],
        &["ls", "--json"],
        &["stat", "file.txt"],
        &["stat", "--json", "file.txt"],
        &["cd", "folder"],
        &["cd"],
        &["pwd"],
        &["key"],
        &["completions", "bash"],
        &["call", "STAT", "--args", r#"{"path": "/"}"#],
    ] {
        let run = world.client().args(args).spawn_unheard().wait().ends(0);
        assert_eq!(run.stderr, "", "{args:?}");
    }
}

#[test]
fn ls_l_shows_permissions_size_and_time() {
    let world = furnished();
    let file = world.served().join("file.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o640)).unwrap();
    fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let run = world.ftpq(["ls", "-l"]).ok();
    let words: Vec<_> = run.lines()[0].split_whitespace().collect();
    assert_eq!(words, ["-rw-r-----", "5", "B", "1970-01-01", "00:00", "file.txt"]);
    assert!(run.lines()[1].starts_with('d') && run.lines()[1].ends_with("folder/"), "{}", run.stdout);
}

#[test]
fn ls_r_shows_every_folder_under_its_own_heading() {
    let world = furnished();
    let run = world.ftpq(["ls", "-R"]).ok();
    assert_eq!(run.stdout, "/:\nfile.txt\nfolder/\n\n/folder:\ninner/\ninside\n\n/folder/inner:\n\n");
}

#[test]
fn ls_json_is_one_object_a_line_with_names_that_can_be_told_apart() {
    let world = furnished();
    for (index, name) in odd_names().iter().enumerate() {
        fs::write(world.served().join("folder/inner").join(name), pattern(index)).unwrap();
    }
    let entries = world.ftpq(["ls", "--json", "folder/inner"]).ok().json();
    assert_eq!(entries.len(), odd_names().len());
    assert!(entries.iter().all(|entry| entry["schema"] == 1 && entry["kind"] == "file"), "{entries:?}");
    let broken = entries.iter().find(|entry| entry["name_hex"] == "fffe");
    assert!(broken.is_some(), "{entries:?}");
    let newline = entries.iter().find(|entry| entry["name"] == "new\nline");
    assert!(newline.is_some(), "{entries:?}");
}

/// A listing must not drive the terminal of whoever looks at it.
#[test]
fn ls_shows_hostile_names_escaped_and_one_a_line() {
    let world = World::serving();
    for name in odd_names() {
        fs::write(world.served().join(name), "").unwrap();
    }
    for args in [&["ls"][..], &["ls", "-l"], &["ls", "-R"], &["ls", "--json"]] {
        let run = world.ftpq(args).ok();
        assert!(!run.stdout.contains(['\u{1b}', '\r']), "{args:?}: {:?}", run.stdout);
        let names = run.lines().into_iter().filter(|line| !line.is_empty() && *line != "/:").count();
        assert_eq!(names, odd_names().len(), "{args:?}: {}", run.stdout);
    }
}

#[test]
fn cd_is_remembered_between_processes() {
    let world = furnished();
    assert_eq!(world.ftpq(["cd", "folder/inner"]).ok().stdout, "/folder/inner\n");
    assert_eq!(world.ftpq(["pwd"]).ok().stdout, format!("{}:/folder/inner\n", world.server().name()));
    assert_eq!(world.ftpq(["cd", ".."]).ok().stdout, "/folder\n");
    assert_eq!(world.ftpq(["ls"]).ok().lines(), ["inner/", "inside"]);
    assert_eq!(world.ftpq(["ls", "/"]).ok().lines(), ["file.txt", "folder/"]);
}

#[test]
fn cd_dash_goes_back_to_where_one_was() {
    let world = furnished();
    world.ftpq(["cd", "folder"]).ok();
    world.ftpq(["cd", "inner"]).ok();
    assert_eq!(world.ftpq(["cd", "-"]).ok().stdout, "/folder\n");
    assert_eq!(world.ftpq(["cd", "-"]).ok().stdout, "/folder/inner\n");
    assert_eq!(world.ftpq(["cd", "/"]).ok().stdout, "/\n");
    assert_eq!(world.ftpq(["cd"]).ok().stdout, format!("{}:/\n", world.server().name()));
}

#[test]
fn cd_above_the_root_stays_at_the_root() {
    let world = furnished();
    assert_eq!(world.ftpq(["cd", ".."]).ok().stdout, "/\n");
    assert_eq!(world.ftpq(["cd", "../../.."]).ok().stdout, "/\n");
    assert_eq!(world.ftpq(["ls", "/../.."]).ok().lines(), ["file.txt", "folder/"]);
}

#[test]
fn a_failed_cd_leaves_one_where_one_was() {
    let world = furnished();
    world.ftpq(["cd", "folder"]).ok();
    world.ftpq(["cd", "nowhere"]).fails(3, "nowhere");
    world.ftpq(["cd", "inside"]).fails(1, "not a folder");
    assert_eq!(world.ftpq(["pwd"]).ok().stdout, format!("{}:/folder\n", world.server().name()));
}

/// Two servers are two places.
#[test]
fn each_server_has_a_folder_of_its_own() {
    let world = furnished();
    let other = world.server_program().serve();
    world.ftpq(["cd", "folder"]).ok();
    let on_other = |command: &str| world.client().env("FTPQ_SERVER", other.name()).arg(command).run().ok().stdout;
    assert_eq!(on_other("pwd"), format!("{}:/\n", other.name()));
    assert_eq!(world.ftpq(["pwd"]).ok().stdout, format!("{}:/folder\n", world.server().name()));
}

#[test]
fn mkdir_makes_one_folder_or_with_p_all_of_them() {
    let world = furnished();
    world.ftpq(["mkdir", "new"]).ok();
    world.ftpq(["mkdir", "new"]).fails(1, "exists already");
    world.ftpq(["mkdir", "x/y/z"]).fails(3, "no such file or folder");
    world.ftpq(["mkdir", "-p", "x/y/z", "new"]).ok();
    assert!(world.served().join("x/y/z").is_dir() && world.served().join("new").is_dir());
}

#[test]
fn rm_takes_files_and_with_r_folders() {
    let world = furnished();
    world.ftpq(["rm", "file.txt"]).ok();
    assert!(!world.served().join("file.txt").exists());
    world.ftpq(["rm", "folder"]).fails(1, "not empty (rm -r takes all it holds)");
    assert!(world.served().join("folder/inside").exists());
    world.ftpq(["rm", "-r", "folder"]).ok();
    assert!(!world.served().join("folder").exists());
    world.ftpq(["rm", "folder"]).fails(3, "folder");
    world.ftpq(["rm", "-r", "/"]).fails(1, "root");
    assert!(world.served().join(".hidden").exists());
}

/// `rm -r` on a link must take the link, not what it leads to.
#[test]
fn rm_r_never_follows_a_link() {
    let world = furnished();
    fs::create_dir(world.path("outside")).unwrap();
    fs::write(world.path("outside/precious"), "x").unwrap();
    std::os::unix::fs::symlink(world.path("outside"), world.served().join("folder/link")).unwrap();
    world.ftpq(["rm", "-r", "folder"]).ok();
    assert!(!world.served().join("folder").exists());
    assert!(world.path("outside/precious").exists());
}

#[test]
fn mv_renames_and_moves_into_folders_and_replaces_only_when_told() {
    let world = furnished();
    let served = world.served();
    world.ftpq(["mv", "file.txt", "renamed"]).ok();
    assert_eq!(fs::read(served.join("renamed")).unwrap(), b"hello");
    world.ftpq(["mv", "renamed", "folder"]).ok();
    assert_eq!(fs::read(served.join("folder/renamed")).unwrap(), b"hello");
    world.ftpq(["mv", "folder/renamed", "folder/inside"]).fails(1, "/folder/inside: exists already");
    holds(served.join("folder/inside"), 2000);
    world.ftpq(["mv", "-f", "folder/renamed", "folder/inside"]).ok();
    assert_eq!(fs::read(served.join("folder/inside")).unwrap(), b"hello");
    world.ftpq(["mv", "folder", "folder/inner"]).fails(1, "into itself");
    world.ftpq(["mv", "nothing", "x"]).fails(3, "nothing");
    world.ftpq(["mv", "folder", "other:x"]).fails(2, "within one server");
}

#[test]
fn stat_describes_files_and_folders() {
    let world = furnished();
    let file = world.served().join("file.txt");
    fs::set_permissions(&file, fs::Permissions::from_mode(0o751)).unwrap();
    fs::File::open(&file).unwrap().set_modified(std::time::UNIX_EPOCH).unwrap();
    let run = world.ftpq(["stat", "file.txt"]).ok();
    let lines = ["path   /file.txt", "kind   file", "size   5 bytes", "mtime  1970-01-01 00:00", "mode   0751"];
    assert_eq!(run.lines(), lines);
    let json = world.ftpq(["stat", "--json", "file.txt", "folder", "/"]).ok().json();
    assert_eq!(json[0]["mtime"], "1970-01-01T00:00:00Z");
    assert_eq!((&json[0]["size"], &json[0]["mode"]), (&5.into(), &"0751".into()));
    assert_eq!((&json[1]["kind"], &json[1]["path"]), (&"folder".into(), &"/folder".into()));
    assert_eq!((&json[2]["kind"], &json[2]["path"]), (&"folder".into(), &"/".into()));
}

#[test]
fn call_runs_a_verb_that_only_a_plugin_knows() {
    let mut world = World::new();
    let contents = pattern(1_000_000);
    fs::write(world.served().join("file"), &contents).unwrap();
    world.authorise(&world.home(), "name=tester rights=list,read");
    let server = SumServer::start(&world.served(), &world.authorized_clients());
    let call = |args: &[&str]| world.client().env("FTPQ_SERVER", &server.name).arg("call").args(args).run();

    let untrusted = call(&["SUM", "--args", r#"{"path":"file"}"#]).fails(4, "not known");
    assert!(untrusted.contains(&server.key), "{untrusted}");
    let json = call(&["SUM", "--accept-new", "--args", r#"{"path":"file"}"#]).ok().json();
    assert_eq!(json[0]["digest"], blake3::hash(&contents).to_hex().as_str());
    assert_eq!((&json[0]["path"], &json[0]["length"]), (&"/file".into(), &1_000_000.into()));

    call(&["SUM", "--args", r#"{"path":"nothing"}"#]).fails(3, "/nothing");
    call(&["SUM", "--args", r#"{"path":"file","fast":true}"#]).fails(1, "fast");
    call(&["SUM", "--args", "{"]).fails(2, "--args is not JSON");
    // It is told of like any other verb, and the verbs of ftpq are there too.
    let con = world.client().env("FTPQ_SERVER", &server.name).arg("con").run().ok();
    assert!(con.stdout.contains("STAT SUM UPLD"), "{}", con.stdout);
    // A server without it says so.
    world.start();
    world.ftpq(["call", "SUM"]).fails(1, "no verb SUM");
}

#[test]
fn call_prints_items_and_the_reply_as_json_lines() {
    let world = furnished();
    let json = world.ftpq(["call", "LIST", "--args", r#"{"path":"folder"}"#]).ok().json();
    assert_eq!(json[0]["entries"].as_array().unwrap().len(), 2, "{json:?}");
}

#[test]
fn key_prints_the_fingerprint_that_the_server_sees() {
    let world = furnished();
    let key = world.key_of(&world.home());
    assert!(key.starts_with("SHA256:") && key.len() == 50, "{key}");
    assert_eq!(world.key_of(&world.home()), key);
    assert_eq!(world.ftpq(["con", "--json"]).ok().json()[0]["key"], key);
}

#[test]
fn completions_are_printed_for_every_shell() {
    let world = World::new();
    for shell in ["bash", "zsh", "fish"] {
        let run = world.ftpq(["completions", shell]).ok();
        assert!(run.stdout.contains("accept-new"), "{shell}");
    }
}

#[test]
fn help_and_version_are_for_everybody() {
    let world = World::new();
    let help = world.ftpq(["--help"]).ok().stdout;
    for word in ["serve", "con", "ls", "cd", "put", "get", "shell", "Exit codes"] {
        assert!(help.contains(word), "{word}: {help}");
    }
    for command in
        ["serve", "con", "ls", "cd", "pwd", "put", "get", "mkdir", "rm", "mv", "stat", "call", "shell", "key"]
    {
        assert!(world.ftpq([command, "--help"]).ok().stdout.contains("Usage"), "{command}");
    }
    assert!(world.ftpq(["--version"]).ok().stdout.starts_with("ftpq "));
    // Nothing was asked for: nothing was made.
    assert!(crate::support::all_names(&world.home()).is_empty());
}

#[test]
fn what_makes_no_sense_is_a_usage_error() {
    let world = World::new();
    for args in [&["fly"][..], &["put"], &["ls", "--no-such-option"], &["get", "x", "-f", "--no-clobber"], &[]] {
        let run = world.ftpq(args).ends(2);
        assert!(!run.stderr.is_empty(), "{args:?}");
    }
}

/// `ftpq ls | head -1` is no failure.
#[test]
fn a_reader_that_leaves_early_is_no_error() {
    let world = World::serving();
    for index in 0..5000 {
        fs::write(world.served().join(format!("a rather long name to fill the pipe {index:060}")), "").unwrap();
    }
    let (mut process, stdout, stderr) = world.client().arg("ls").spawn_unread();
    drop(stdout);
    assert_eq!(process.wait().code(), Some(0), "{:?}", stderr.so_far());
    assert_eq!(stderr.so_far(), Vec::<String>::new());
}
