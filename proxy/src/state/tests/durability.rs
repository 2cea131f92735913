//! What is on the disk: after restarts, kills and failures, and whose files it is in.

use super::*;

#[tokio::test]
async fn what_is_stored_is_read_back_as_it_was() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    let before = world.state.view();
    world.state.close().await;
    let again = open(world.dir.path(), &world.clock).await.unwrap();
    let after = again.view();
    assert_eq!(before.request(&id), after.request(&id));
    assert_eq!(before.user(&name("alice")), after.user(&name("alice")));
    assert_eq!(before.node(&world.node), after.node(&world.node));
    for role in before.roles() {
        assert_eq!(after.role(&role.name), Some(role));
    }
}

#[tokio::test]
async fn a_second_proxy_on_the_same_directory_is_refused() {
    let world = world().await;
    let error = open(world.dir.path(), &world.clock).await.unwrap_err();
    let text = error.to_string();
    assert!(text.contains("is running on"), "{text}");
    assert!(
        text.contains(&format!("process {}", std::process::id())),
        "{text}"
    );
    world.state.close().await;
    open(world.dir.path(), &world.clock).await.unwrap();
}

#[tokio::test]
async fn a_newer_schema_is_refused_and_the_directory_is_free_again() {
    let world = world().await;
    world.state.close().await;
    world.sql("PRAGMA user_version = 999").await.unwrap();
    let error = open(world.dir.path(), &world.clock).await.unwrap_err();
    assert!(
        matches!(
            error,
            OpenError::Migrate(MigrateError::Newer { found: 999, .. })
        ),
        "{error}"
    );
    let back = format!("PRAGMA user_version = {}", crate::store::SCHEMA);
    world.sql(Box::leak(back.into_boxed_str())).await.unwrap();
    open(world.dir.path(), &world.clock).await.unwrap();
}

#[tokio::test]
async fn sessions_of_a_killed_proxy_end_at_the_next_start_and_pending_requests_stay() {
    let world = world().await;
    let approved = world.file("root").await;
    world.approve(approved).await;
    let pending = world.file("deploy").await;
    let (ended, left) = (
        SessionId::from_uuid(Uuid::new_v4()),
        SessionId::from_uuid(Uuid::new_v4()),
    );
    let permit = world.permit("root");
    for session in [ended, left] {
        world
            .state
            .session_started(
                &permit,
                session,
                None,
                Some((Event::Exec, "uptime".to_owned())),
            )
            .await
            .unwrap();
    }
    for _ in 0..2 {
        world
            .state
            .session_ended(&permit, ended, SessionEnded::default())
            .await
            .unwrap();
    }
    world.state.close().await;
    let state = open(world.dir.path(), &world.clock).await.unwrap();
    assert_eq!(
        state.view().request(&pending).unwrap().state,
        RequestState::Pending
    );
    let sessions = state.reader().sessions(10).await.unwrap();
    assert!(
        sessions.iter().all(|session| session.ended.is_some()),
        "{sessions:?}"
    );
    let filter = AuditFilter {
        event: Some(Event::SessionEnd),
        ..AuditFilter::default()
    };
    let ends = state.reader().audit(&filter, 0, 100).await.unwrap();
    assert_eq!(ends.len(), 2);
    assert_eq!(ends[1].fields()["reason"], "the proxy stopped");
    assert_eq!(ends[1].fields()["session_id"], left.to_string());
    state.reader().verify(Vec::new()).await.unwrap();
}

#[tokio::test]
async fn a_store_that_fails_grants_nothing_and_comes_back_by_itself() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world
        .sql("CREATE TRIGGER full BEFORE INSERT ON audit BEGIN SELECT RAISE(ABORT, 'disk full'); END")
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err();
    assert!(
        matches!(error, IssueError::Store(StoreError::Unavailable(_))),
        "{error}"
    );
    let error = world
        .state
        .file(&me("alice"), world.wanted("deploy"))
        .await
        .unwrap_err();
    assert!(matches!(error, FileError::Store(_)), "{error}");
    assert_eq!(world.state.view().requests().count(), 1);
    world.sql("DROP TRIGGER full").await.unwrap();
    world.issue("root").await.unwrap();
    world.verify().await.unwrap();
}

#[tokio::test]
async fn what_another_process_commits_counts_in_the_next_decision() {
    let world = world().await;
    let id = world.file("root").await;
    world.approve(id).await;
    world
        .sql(
            "DELETE FROM user_keys; DELETE FROM user_roles; DELETE FROM users WHERE name = 'alice'",
        )
        .await
        .unwrap();
    let error = world.issue("root").await.unwrap_err();
    assert!(matches!(error, IssueError::NotPermitted(_)), "{error}");
    assert!(world.state.view().user(&name("alice")).is_none());
}

#[tokio::test]
async fn a_panic_in_one_decision_harms_no_other() {
    let world = world().await;
    let by = admin();
    let broken = world
        .state
        .update_user(
            &by,
            &name::<UserName>("alice"),
            |_| -> Result<(), std::convert::Infallible> { panic!("ours") },
        )
        .await;
    assert!(broken.is_err());
    world.file("root").await;
    world.verify().await.unwrap();
}

#[tokio::test]
async fn many_waiting_writers_share_commits() {
    let world = world().await;
    let mut auditing = tokio::task::JoinSet::new();
    for number in 0..500 {
        let state = world.state.clone();
        auditing.spawn(async move {
            state
                .audit(Entry::new(Event::Exec).command(number))
                .await
                .unwrap()
        });
    }
    auditing.join_all().await;
    let filter = AuditFilter {
        event: Some(Event::Exec),
        ..AuditFilter::default()
    };
    assert_eq!(
        world
            .state
            .reader()
            .audit(&filter, 0, 1000)
            .await
            .unwrap()
            .len(),
        500
    );
    world.verify().await.unwrap();
}

// What follows runs this test program again as a process of its own, since a process can be killed
// and has a umask.

const CHILD_DIR: &str = "ANTEROOM_TEST_CHILD_DIR";
const FAILING_DIR: &str = "ANTEROOM_TEST_FAILING_DIR";

/// The process that is killed: files, approves, issues, says so, and starts over.
#[tokio::test]
async fn child_that_works_until_it_is_killed() {
    let Some(dir) = std::env::var_os(CHILD_DIR) else {
        return;
    };
    let dir = Path::new(&dir);
    let clock = Arc::new(ManualClock::new(START));
    let state = open(dir, &clock).await.unwrap();
    if state.view().nodes().next().is_none() {
        let mut objects = roles();
        objects.push(Object::Node(node("iot")));
        objects.push(Object::User(user("alice", &["asker"])));
        objects.push(Object::User(user("bob", &["judge"])));
        state
            .put(&admin(), objects, Existing::Refuse)
            .await
            .unwrap();
    }
    let node = state.view().nodes().next().unwrap().id;
    let world = World {
        dir: tempfile::tempdir().unwrap(),
        clock,
        state,
        node,
    };
    for _ in 0..25 {
        let id = match world
            .state
            .file(&me("alice"), world.wanted("root"))
            .await
            .unwrap()
        {
            Filed::New(new) => new.request.id,
            Filed::Joined(id) | Filed::Covered(id) => id,
        };
        println!("filed {id}");
        if world.state_of(id) == RequestState::Pending {
            world.approve(id).await;
        }
        println!("approved {id}");
        let issued = world.issue("root").await.unwrap();
        println!("issued {}", issued.certificate.serial().get());
        let session = SessionId::from_uuid(Uuid::new_v4());
        world
            .state
            .session_started(&issued.permit, session, None, None)
            .await
            .unwrap();
        println!("started {session}");
        let login = world.login(&me("alice"), &[id]).await.unwrap();
        println!("issued {}", login.certificate.serial().get());
        let who = identities::present(&world.state, &login.certificate).unwrap();
        let dropped = world.drop_all(&who.into_identity()).await.unwrap();
        println!("issued {}", dropped.certificate.serial().get());
        world
            .state
            .apply(
                &admin(),
                id,
                Action::Revoke {
                    reason: String::new(),
                },
            )
            .await
            .unwrap();
        println!("revoked {id}");
    }
    world.state.close().await;
}

fn child(program: &str, arguments: &[String], dir: &Path) -> Command {
    let mut command = Command::new(program);
    command
        .args(arguments)
        .args([
            "--exact",
            "state::tests::durability::child_that_works_until_it_is_killed",
            "--nocapture",
            "--test-threads=1",
        ])
        .env(CHILD_DIR, dir)
        .stdin(Stdio::null())
        .stdout(Stdio::piped())
        .stderr(Stdio::null());
    command
}

/// Whether strace is here and may trace; where not, the tests that need it say so and end.
fn strace_works() -> bool {
    let traced = Command::new("strace")
        .args(["-f", "-qq", "-o", "/dev/null", "true"])
        .output();
    let works = traced.is_ok_and(|output| output.status.success());
    if !works {
        eprintln!("skipped: strace is not installed, or may not trace here");
    }
    works
}

fn this_program() -> String {
    std::env::current_exe()
        .unwrap()
        .to_str()
        .unwrap()
        .to_owned()
}

/// What the killed process had said must be true, and everything must hold together.
async fn check_after_kill(dir: &Path, said: &str) {
    let clock = Arc::new(ManualClock::new(START));
    let state = open(dir, &clock).await.unwrap();
    state.reader().verify(Vec::new()).await.unwrap();
    let mut database = elsewhere(dir).await;
    for line in said.lines() {
        let Some((what, id)) = line.split_once(' ') else {
            continue;
        };
        let query = match what {
            "filed" => "SELECT count(*) FROM requests WHERE id = $1",
            "approved" => {
                "SELECT count(*) FROM requests WHERE id = $1 AND state IN ('APPROVED', 'REVOKED')"
            }
            "issued" => "SELECT count(*) FROM issuances WHERE serial = $1",
            "started" => "SELECT count(*) FROM sessions WHERE id = $1 AND ended IS NOT NULL",
            "revoked" => "SELECT count(*) FROM requests WHERE id = $1 AND state = 'REVOKED'",
            _ => continue,
        };
        let found: i64 = sqlx::query_scalar(query)
            .bind(id)
            .fetch_one(&mut database)
            .await
            .unwrap();
        assert_eq!(found, 1, "said `{line}`, and it is not so");
    }
    let unended: i64 = sqlx::query_scalar("SELECT count(*) FROM sessions WHERE ended IS NULL")
        .fetch_one(&mut database)
        .await
        .unwrap();
    assert_eq!(unended, 0);
    state.close().await;
}

#[tokio::test]
async fn whatever_was_said_before_a_kill_is_true_after_it() {
    use std::io::{BufRead, BufReader};

    let dir = tempfile::tempdir().unwrap();
    for lines in [1_usize, 4, 9, 16, 27] {
        let mut running = child(&this_program(), &[], dir.path()).spawn().unwrap();
        let mut said = String::new();
        let mut output = BufReader::new(running.stdout.take().unwrap());
        let mut seen = 0;
        while seen < lines && output.read_line(&mut said).unwrap() > 0 {
            seen = said
                .lines()
                .filter(|line| line.contains(' ') && !line.starts_with("running"))
                .count();
        }
        running.kill().unwrap();
        // What was in the pipe already was said, too.
        std::io::Read::read_to_string(&mut output, &mut said).unwrap();
        running.wait().unwrap();
        // The last line may have been cut by the kill.
        let whole = said.rsplit_once('\n').map_or("", |(whole, _)| whole);
        assert!(whole.contains("filed "), "the child did nothing: {said}");
        check_after_kill(dir.path(), whole).await;
    }
}

#[tokio::test]
async fn killed_at_each_sync_of_the_disk_the_state_is_whole() {
    if !strace_works() {
        return;
    }
    let mut killed = 0;
    // Each sync of making the database and of the first requests, then samples of what follows.
    for at in (1..=14).chain((16..40).step_by(6)) {
        let dir = tempfile::tempdir().unwrap();
        let inject = format!("inject=fdatasync,fsync:signal=KILL:when={at}");
        let strace = [
            "-f",
            "-qq",
            "-o",
            "/dev/null",
            "-e",
            "trace=fdatasync,fsync",
            "-e",
            &inject,
        ];
        let mut arguments: Vec<String> = strace.iter().map(ToString::to_string).collect();
        arguments.push(this_program());
        let output = child("strace", &arguments, dir.path()).output().unwrap();
        let said = String::from_utf8_lossy(&output.stdout).into_owned();
        if !said.contains("test result") {
            killed += 1;
        }
        check_after_kill(
            dir.path(),
            said.rsplit_once('\n').map_or("", |(whole, _)| whole),
        )
        .await;
    }
    assert!(killed > 0, "strace killed nothing");
}

/// The process whose disk fails now and then: it tries again until it is done.
#[tokio::test]
async fn child_that_works_on_a_failing_disk() {
    let Some(dir) = std::env::var_os(FAILING_DIR) else {
        return;
    };
    let clock = Arc::new(ManualClock::new(START));
    let state = open(Path::new(&dir), &clock).await.unwrap();
    let mut failures = 0;
    for number in 0..60 {
        while state
            .audit(Entry::new(Event::Exec).command(number))
            .await
            .is_err()
        {
            failures += 1;
        }
        println!("logged {number}");
    }
    println!("failures {failures}");
    state.close().await;
}

#[tokio::test]
async fn a_failing_disk_loses_nothing_that_was_said_and_needs_no_restart() {
    if !strace_works() {
        return;
    }
    for inject in [
        "fdatasync,fsync:error=EIO:when=20+9",
        "pwrite64:error=ENOSPC:when=90+13",
    ] {
        let dir = tempfile::tempdir().unwrap();
        // A first start in peace: a start on a broken disk may well fail.
        open(dir.path(), &Arc::new(ManualClock::new(START)))
            .await
            .unwrap()
            .close()
            .await;
        let (syscall, _) = inject.split_once(':').unwrap();
        let output = Command::new("strace")
            .args(["-f", "-qq", "-o", "/dev/null", "-e"])
            .arg(format!("trace={syscall}"))
            .arg("-e")
            .arg(format!("inject={inject}"))
            .arg(this_program())
            .args([
                "--exact",
                "state::tests::durability::child_that_works_on_a_failing_disk",
                "--nocapture",
            ])
            .env(FAILING_DIR, dir.path())
            .output()
            .unwrap();
        let said = String::from_utf8_lossy(&output.stdout);
        assert!(
            output.status.success(),
            "{inject}: {said} {}",
            String::from_utf8_lossy(&output.stderr)
        );
        let failures = said
            .lines()
            .find_map(|line| line.strip_prefix("failures "))
            .unwrap();
        assert_ne!(failures, "0", "{inject}: nothing failed");
        let reader = Reader::of(dir.path());
        reader.verify(Vec::new()).await.unwrap();
        let filter = AuditFilter {
            event: Some(Event::Exec),
            ..AuditFilter::default()
        };
        let logged = reader.audit(&filter, 0, 1000).await.unwrap();
        for number in 0..60 {
            let number = number.to_string();
            assert!(
                logged
                    .iter()
                    .any(|record| record.fields()["command"] == number),
                "{inject}: {number}"
            );
        }
    }
}

#[tokio::test]
async fn a_directory_without_a_proxy_can_be_read_and_verified() {
    let world = world().await;
    world.state.close().await;
    let report = Reader::of(world.dir.path())
        .verify(Vec::new())
        .await
        .unwrap();
    assert!(report.head.seq > 0);
}

#[tokio::test]
async fn files_are_private_whatever_the_umask() {
    for umask in ["000", "022", "0777"] {
        let parent = tempfile::tempdir().unwrap();
        let dir = parent.path().join("data");
        std::fs::create_dir(&dir).unwrap();
        let script = format!("umask {umask}; exec \"$0\" \"$@\"");
        let output = child("sh", &["-c".to_owned(), script, this_program()], &dir)
            .output()
            .unwrap();
        assert!(
            output.status.success(),
            "umask {umask}: {}",
            String::from_utf8_lossy(&output.stdout)
        );
        assert_eq!(std::fs::metadata(&dir).unwrap().mode() & 0o777, 0o700);
        // While one runs there are three files and the lock; look while one runs.
        let clock = Arc::new(ManualClock::new(START));
        let state = open(&dir, &clock).await.unwrap();
        for file in std::fs::read_dir(&dir).unwrap() {
            let file = file.unwrap();
            let mode = file.metadata().unwrap().mode() & 0o777;
            assert_eq!(
                mode,
                0o600,
                "umask {umask}: {:?} has mode {mode:o}",
                file.file_name()
            );
        }
        state.close().await;
    }
}

#[tokio::test]
async fn a_directory_with_other_things_in_it_is_not_taken() {
    let dir = tempfile::tempdir().unwrap();
    std::fs::set_permissions(
        dir.path(),
        std::os::unix::fs::PermissionsExt::from_mode(0o755),
    )
    .unwrap();
    std::fs::write(dir.path().join("letter.txt"), "mine").unwrap();
    let clock = Arc::new(ManualClock::new(START));
    let error = open(dir.path(), &clock).await.unwrap_err().to_string();
    assert!(
        error.contains("mode 0755") && error.contains("chmod 700"),
        "{error}"
    );
    assert_eq!(std::fs::metadata(dir.path()).unwrap().mode() & 0o777, 0o755);
}
