//! For `ci/bench`: starts the container of a job through the engine's API alone, and waits for its sshd, as a
//! baseline for the plugin. `engine_start IMAGE UID`, as root on a node; prints milliseconds. With a COUNT: creates, starts and
//! removes so many.

use std::error::Error;
use std::fs;
use std::io::{Read, Write};
use std::net::TcpStream;
use std::os::unix::fs::chown;
use std::os::unix::net::UnixStream;
use std::process::Command;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::sleep;
use std::time::{Duration, Instant};

const DIRECTORY: &str = "/run/engine_start";
const PORT: u16 = 31_999;

fn engine(method: &str, path: &str, body: &str) -> Result<String, Box<dyn Error>> {
    let mut engine = UnixStream::connect("/var/run/docker.sock")?;
    let length = body.len();
    write!(
        engine,
        "{method} /v1.41{path} HTTP/1.0\r\nHost: docker\r\nContent-Type: application/json\r\nContent-Length: {length}\r\n\r\n{body}"
    )?;
    let mut answer = String::new();
    engine.read_to_string(&mut answer)?;
    if answer.split(' ').nth(1).is_some_and(|status| status.starts_with('2')) {
        return Ok(answer);
    }
    Err(format!("{method} {path}: {answer}").into())
}

/// Writes keys, made beforehand because the plugin does not generate its keys either, and sshd's configuration.
fn prepare(uid: u32) -> Result<(), Box<dyn Error>> {
    let _ = fs::remove_dir_all(DIRECTORY);
    fs::create_dir(DIRECTORY)?;
    let key = format!("{DIRECTORY}/key");
    Command::new("ssh-keygen").args(["-q", "-t", "ed25519", "-N", "", "-f", &key]).status()?;
    let config = format!(
        "Port {PORT}\nHostKey {key}\nPidFile none\nUsePAM no\nStrictModes no\nAuthorizedKeysFile {key}.pub\nUseDNS no\n"
    );
    fs::write(format!("{DIRECTORY}/config"), config)?;
    chown(&key, Some(uid), None)?;
    Ok(())
}

fn answers() -> bool {
    let Ok(mut stream) = TcpStream::connect(("127.0.0.1", PORT)) else { return false };
    let mut banner = [0; 8];
    stream.read_exact(&mut banner).is_ok() && &banner == b"SSH-2.0-"
}

fn create(name: &str, image: &str, uid: &str) -> Result<String, Box<dyn Error>> {
    let body = format!(
        r#"{{"Image":"{image}","Entrypoint":["/usr/sbin/sshd","-D","-e","-f","{DIRECTORY}/config"],"User":"{uid}:{uid}",
        "HostConfig":{{"NetworkMode":"host","PidMode":"host","IpcMode":"private","CapDrop":["ALL"],
        "SecurityOpt":["no-new-privileges:true","seccomp=unconfined","apparmor=unconfined"],
        "Mounts":[{{"Type":"bind","Source":"{DIRECTORY}","Target":"{DIRECTORY}","ReadOnly":true}}]}}}}"#
    );
    engine("POST", &format!("/containers/create?name={name}"), &body)
}

fn start(name: &str) -> Result<String, Box<dyn Error>> {
    engine("POST", &format!("/containers/{name}/start"), "")
}

fn remove(name: &str) -> Result<String, Box<dyn Error>> {
    engine("DELETE", &format!("/containers/{name}?force=1&v=1"), "")
}

fn ms(time: Duration) -> f64 {
    time.as_secs_f64() * 1000.0
}

fn main() -> Result<(), Box<dyn Error>> {
    let words: Vec<String> = std::env::args().skip(1).collect();
    let (image, uid, count) = match &words[..] {
        [image, uid] => (image, uid, None),
        [image, uid, count] => (image, uid, Some(count.parse()?)),
        _ => return Err("usage: engine_start IMAGE UID [COUNT]".into()),
    };
    prepare(uid.parse()?)?;
    match count {
        None => one(image, uid),
        Some(count) => many(image, uid, count),
    }
}

fn one(image: &str, uid: &str) -> Result<(), Box<dyn Error>> {
    const NAME: &str = "engine_start";
    let began = Instant::now();
    let created = create(NAME, image, uid)?;
    let create = began.elapsed();
    start(NAME)?;
    let start = began.elapsed();
    while !answers() {
        if began.elapsed() > Duration::from_secs(20) {
            let _ = remove(NAME);
            return Err(format!("no sshd: {created}").into());
        }
        sleep(Duration::from_millis(1));
    }
    let total = began.elapsed();
    remove(NAME)?;
    println!("engine-create {:.1}\nengine-start {:.1}", ms(create), ms(start - create));
    println!("engine-sshd {:.1}\nengine-total {:.1}", ms(total - start), ms(total));
    Ok(())
}

/// Creates, starts and removes so many containers, as many at once as the plugin's.
fn many(image: &str, uid: &str, count: usize) -> Result<(), Box<dyn Error>> {
    const AT_ONCE: usize = 8;
    let next = AtomicUsize::new(0);
    let work = || -> Result<(), String> {
        loop {
            let number = next.fetch_add(1, Ordering::Relaxed);
            if number >= count {
                return Ok(());
            }
            let name = format!("engine_start_{number}");
            let done = create(&name, image, uid).and_then(|_| start(&name)).and_then(|_| remove(&name));
            done.map_err(|error| error.to_string())?;
        }
    };
    let began = Instant::now();
    std::thread::scope(|scope| {
        let workers: Vec<_> = (0..AT_ONCE).map(|_| scope.spawn(work)).collect();
        workers
            .into_iter()
            .try_for_each(|worker| worker.join().unwrap_or_else(|_| Err("panicked".to_owned())))
    })?;
    println!("many-engine {:.1}", ms(began.elapsed()));
    Ok(())
}
