//! The program under a supervisor that speaks systemd's protocol: what it is told, and when.

use super::{edit_file, signal};
use crate::support::{App, Callback, Config, NOWHERE, Vhost, eventually};
use std::os::unix::net::UnixDatagram;
use std::sync::{Arc, Mutex};
use std::time::{Duration, Instant};

/// Everything that came, in order.
struct Supervisor {
    told: Arc<Mutex<Vec<(Instant, String)>>>,
}

impl Supervisor {
    fn over(config: Config) -> (Self, Config) {
        let path = config.dir().join("notify");
        let socket = UnixDatagram::bind(&path).expect("our own directory");
        let told = Arc::new(Mutex::new(Vec::new()));
        let heard = Arc::clone(&told);
        std::thread::spawn(move || {
            let mut bytes = [0; 4096];
            while let Ok(length) = socket.recv(&mut bytes) {
                let text = String::from_utf8_lossy(&bytes[..length]).into_owned();
                heard.lock().expect("nobody panics with the lock").push((Instant::now(), text));
            }
        });
        let config = config
            .env("NOTIFY_SOCKET", path.to_str().expect("a name of text"))
            .env("WATCHDOG_USEC", &WATCHDOG.as_micros().to_string());
        (Self { told }, config)
    }

    fn told(&self) -> Vec<(Instant, String)> {
        self.told.lock().expect("nobody panics with the lock").clone()
    }

    /// All that was told but for the watchdog and status lines.
    fn states(&self) -> Vec<String> {
        let first = |text: &String| text.lines().next().unwrap_or_default().to_owned();
        let states = self.told().iter().map(|(_, text)| first(text)).collect::<Vec<_>>();
        states.into_iter().filter(|state| state != "WATCHDOG=1" && !state.starts_with("STATUS=")).collect()
    }

    async fn until_status(&self, wanted: &str) {
        eventually(&format!("a status with {wanted}"), async || {
            let told = self.told();
            let last = told.iter().rev().find_map(|(_, text)| text.split("STATUS=").nth(1));
            match last {
                Some(status) if status.contains(wanted) => Ok(()),
                other => Err(other.map(str::to_owned)),
            }
        })
        .await;
    }
}

const WATCHDOG: Duration = Duration::from_secs(2);

#[tokio::test(flavor = "multi_thread")]
async fn a_supervisor_is_told_of_readiness_reloads_and_the_end() {
    let vhost = Vhost::new().await;
    let (supervisor, config) = Supervisor::over(Config::with_url(NOWHERE));
    let mut app = App::with(config).await;
    eventually("READY=1", async || supervisor.states().first().cloned().ok_or(())).await;
    assert_eq!(supervisor.states(), ["READY=1"]);
    supervisor.until_status("accepting; 0 pending; broker away").await;
    app.accept(&Callback::list("i", "t")).await;
    supervisor.until_status("accepting; 1 pending; broker away").await;

    edit_file(&app, |text| text.replace(NOWHERE, vhost.url()));
    signal(app.pid(), "HUP");
    supervisor.until_status("accepting; 0 pending; broker connected").await;
    let told = supervisor.told();
    let reload = told.iter().find(|(_, text)| text.starts_with("RELOADING=1")).expect("it reloads");
    let usec =
        reload.1.lines().find_map(|line| line.strip_prefix("MONOTONIC_USEC=")).expect("in one message");
    assert!(usec.parse::<u64>().expect("a number") > 0);
    assert_eq!(supervisor.states(), ["READY=1", "RELOADING=1", "READY=1"]);

    edit_file(&app, |_| "[http\n".to_owned());
    signal(app.pid(), "HUP");
    supervisor.until_status("was rejected").await;
    assert_eq!(
        supervisor.states().len(),
        5,
        "a rejected reload has ended as well: {:?}",
        supervisor.states()
    );

    app.terminate();
    assert_eq!(app.ended().await.code(), Some(0), "{}", app.stderr());
    assert_eq!(supervisor.states()[5..], ["STOPPING=1"]);
}

#[tokio::test(flavor = "multi_thread")]
async fn the_watchdog_is_fed_while_the_ledger_answers_and_starves_when_it_hangs() {
    let (supervisor, config) = Supervisor::over(Config::with_url(NOWHERE));
    let app = App::with(config).await;
    let fed = || supervisor.told().into_iter().filter(|(_, text)| text == "WATCHDOG=1").collect::<Vec<_>>();
    // The broker was never there.
    eventually("the watchdog to be fed five times", async || match fed().len() {
        count if count >= 5 => Ok(()),
        count => Err(count),
    })
    .await;
    let times: Vec<_> = fed().into_iter().map(|(at, _)| at).collect();
    let mean = (times[times.len() - 1] - times[0]) / u32::try_from(times.len() - 1).expect("few");
    assert!(mean < WATCHDOG, "twice in its time, on a busy machine at least once: {mean:?}");

    // Somebody else holds the ledger, so the writer waits; the rest of the program goes on, and would gladly say so.
    let ledger = rusqlite::Connection::open(app.dir().join("ledger.db")).expect("it is there");
    ledger.execute_batch("BEGIN IMMEDIATE").expect("between two commits");
    let held = Instant::now();
    let longest = || {
        let times: Vec<_> = fed().into_iter().map(|(at, _)| at).chain([Instant::now()]).collect();
        times.windows(2).map(|pair| pair[1] - pair[0]).max().unwrap_or_default()
    };
    eventually("the watchdog to starve", async || match longest() {
        // systemd would have killed it by now.
        gap if gap > WATCHDOG + Duration::from_millis(500) => Ok(()),
        gap => Err((gap, held.elapsed())),
    })
    .await;
    assert_eq!(app.get("/livez").await.status, 200, "the rest runs");
    ledger.execute_batch("ROLLBACK").expect("ours");
    let before = fed().len();
    eventually("the watchdog to be fed again", async || match fed().len() {
        count if count >= before + 3 => Ok(()),
        count => Err(count),
    })
    .await;
}
