#[cfg(test)]
mod tests {
    use ftpq_proto::Right;
    use ftpq_transport::Identity;

    use super::*;

    fn key() -> Fingerprint {
        Identity::generate().unwrap().fingerprint()
    }

    #[test]
    fn lines_are_taken_whole_or_not_at_all() {
        let (a, b, c) = (key(), key(), key());
        let text = format!(
            "# friends\n\n{a} name=alice rights=list,read root=/home/alice # since May\n\
             {b} name=bob rights=all\n{b} name=bob rights=list color=red\n{c} rights=list\nnonsense\n\
             {a} name=again rights=admin\n{c} name=c rights=list rights=admin\n"
        );
        let current = parse(&text);
        assert_eq!(current.grants.len(), 1);
        let alice = &current.grants[&a];
        assert_eq!(alice.user.name, "alice");
        assert_eq!(alice.root.to_string(), "/home/alice");
        assert!(alice.user.rights.contains(Right::Read) && !alice.user.rights.contains(Right::Write));
        let rejected: Vec<_> = current.rejected.iter().map(|line| line.number).collect();
        assert_eq!(rejected, [4, 5, 6, 7, 8, 9]);
    }

    /// What is cut off or made out of an option could be the restriction in it.
    #[test]
    fn a_hash_within_a_word_is_no_comment() {
        let (a, b) = (key(), key());
        let current = parse(&format!(
            "#{a} name=no rights=all\n \t# {a} name=no rights=all\n{a} name=a#1 rights=list root=/shared#private #x\n\
             {b} name=b rights=list#,read\n"
        ));
        assert_eq!(current.grants.len(), 1);
        assert_eq!(current.grants[&a].user.name, "a#1");
        assert_eq!(current.grants[&a].root, "/shared#private".parse().unwrap());
        assert_eq!(current.rejected.iter().map(|line| line.number).collect::<Vec<_>>(), [4]);
    }

    #[test]
    fn a_root_is_absolute_and_canonical_or_the_line_counts_for_nothing() {
        let a = key();
        for bad in ["", "shared", "./shared", "/shared/", "//shared", "/a//b", "/a/../b", "/..", "/a/.", "/a/..", "#x"]
        {
            let current = parse(&format!("{a} name=a rights=list root={bad}\n"));
            assert!(current.grants.is_empty() && current.rejected.len() == 1, "{bad:?}");
        }
        for good in ["/", "/a", "/a/b", "/.a/b..", "/a#b"] {
            let current = parse(&format!("{a} name=a rights=list root={good}\n"));
            assert_eq!(current.grants[&a].root, good.parse().unwrap(), "{good:?}");
        }
    }

    #[test]
    fn a_change_of_the_file_counts_at_once() {
        let folder = tempfile::tempdir().unwrap();
        let file = folder.path().join("authorized_clients");
        let access = Access::open(&file).unwrap();
        let user = User { name: "me".into(), key: key(), rights: Rights::ALL, limits: Limits::default() };
        assert_eq!(access.grant(user.key), None);
        access.authorise(&user).unwrap();
        access.authorise(&user).unwrap();
        assert_eq!(access.grant(user.key).unwrap().user, user);
        assert_eq!(access.count(), 1);
        fs::write(&file, "").unwrap();
        assert_eq!(access.grant(user.key), None);
    }
}
