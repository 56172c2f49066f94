//! `server.toml`: what a file says, what counts before it, and what becomes of mistakes in it.

use std::fs;

use crate::support::{World, all_names};

#[test]
fn a_file_sets_what_is_not_typed() {
    let world = World::new();
    fs::write(world.served().join("of-file"), "x").unwrap();
    fs::create_dir_all(world.path("typed/of-line")).unwrap();
    fs::create_dir_all(world.path("named/of-environment")).unwrap();
    let text = "root = \"../served\"\nlisten = [\"127.0.0.2:0\", \"127.0.0.3:0\"]\nsandbox = false\n";
    fs::write(world.home().join("server.toml"), text).unwrap();

    let server = world.home_program().arg("serve").serve();
    assert!(server.screen.contains("127.0.0.2:") && server.screen.contains("127.0.0.3:"), "{}", server.screen);
    assert!(server.screen.contains("sandbox      none: it was switched off"), "{}", server.screen);
    assert!(server.screen.contains(&format!("serves {}", world.served().display())), "{}", server.screen);

    let named = || world.home_program().arg("serve").env("FTPQ_ROOT", world.path("named"));
    let server = named().env("FTPQ_LISTEN", "127.0.0.1:0").env("FTPQ_SANDBOX", "yes").serve();
    assert!(server.screen.contains(&format!("serves {}", world.path("named").display())), "{}", server.screen);
    assert!(!server.screen.contains("127.0.0.2:") && !server.screen.contains("switched off"), "{}", server.screen);

    let server = named().arg(world.path("typed")).args(["--listen", "127.0.0.1:0"]).serve();
    assert!(server.screen.contains(&format!("serves {}", world.path("typed").display())), "{}", server.screen);

    // Another file is read instead of that one, not with it.
    let other = world.path("other.toml");
    fs::write(&other, "listen = [\"127.0.0.4:0\"]\n").unwrap();
    for program in [
        world.home_program().arg("serve").arg("--config").arg(&other),
        world.home_program().arg("serve").env("FTPQ_CONFIG", &other),
    ] {
        let server = program.serve();
        assert!(server.screen.contains("127.0.0.4:"), "{}", server.screen);
        assert!(!server.screen.contains("switched off"), "{}", server.screen);
    }
}

#[test]
fn a_file_that_is_wrong_is_an_error_and_nothing_is_served() {
    let world = World::new();
    let config = world.home().join("server.toml");
    let shown = config.display();
    for (text, why) in [
        (&b"\nrooot = \"/\"\n"[..], "line 2: unknown field `rooot`"),
        (b"keep-unfinished = 0", "line 1: 0 is not in 1 to 3650 days"),
        (b"root = \"\xff\"", "valid UTF-8"),
        (&[b'#'; 70_000], "longer than 64 KiB"),
    ] {
        fs::write(&config, text).unwrap();
        let said = world.server_program().run().fails(2, why);
        assert!(said.contains(&shown.to_string()), "{said}");
    }
    fs::remove_file(&config).unwrap();
    fs::create_dir(&config).unwrap();
    world.server_program().run().fails(2, &format!("cannot read {shown}: "));
    world.server_program().args(["--config", "missing.toml"]).run().fails(2, "cannot read missing.toml: ");
    assert_eq!(all_names(&world.home()), ["server.toml"]);
}
