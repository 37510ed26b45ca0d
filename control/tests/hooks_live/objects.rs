//! Objects: whole or not at all, for their owners only, and not for ever.

use std::path::{Path, PathBuf};
use std::time::{Duration, SystemTime};

use control::objects::{ObjectSettings, Place};
use futures_util::StreamExt;
use reqwest::{Method, Response};
use serde_json::json;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::house::{House, Plan, SOON, json_of};

/// A house whose objects are in a folder.
async fn house_with(change: impl FnOnce(&mut ObjectSettings)) -> House {
    let mut objects = ObjectSettings { place: Place::Folder(PathBuf::from("objects")), ..Default::default() };
    objects.reserve = 0;
    change(&mut objects);
    House::open(&Plan { objects, ..Plan::default() }).await
}

fn status(answer: &Response) -> u16 {
    answer.status().as_u16()
}

fn header<'a>(answer: &'a Response, name: &str) -> &'a str {
    answer.headers().get(name).map_or("", |value| value.to_str().expect("text"))
}

/// All files below a folder.
fn files(folder: &Path) -> Vec<PathBuf> {
    let mut found = Vec::new();
    for entry in std::fs::read_dir(folder).expect("a folder") {
        let path = entry.expect("an entry").path();
        if path.is_dir() { found.extend(files(&path)) } else { found.push(path) }
    }
    found
}

/// Sends bytes as they are, and gives the status of the answer.
async fn raw(house: &House, request: &[u8]) -> u16 {
    let mut stream = TcpStream::connect(house.service.address).await.expect("a connection");
    stream.write_all(request).await.expect("sent");
    let mut answer = [0; 64];
    let read =
        tokio::time::timeout(SOON, stream.read(&mut answer)).await.expect("an answer").expect("readable");
    let text = String::from_utf8_lossy(&answer[..read]).into_owned();
    text.split(' ').nth(1).and_then(|status| status.parse().ok()).unwrap_or(0)
}

#[tokio::test(flavor = "multi_thread")]
async fn what_is_put_is_got() {
    for place in [Place::Memory, Place::Folder(PathBuf::from("objects"))] {
        let house = house_with(|objects| objects.place = place.clone()).await;
        let (path, key) = ("/v1/objects/inputs/1/deep/cat.png", house.keys.one.clone());
        assert_eq!(status(&house.get(path, &key).await), 404);
        let put = house.put(path, &key, "0123456789").await;
        let tag = header(&put, "etag").to_owned();
        assert_eq!((status(&put), tag.is_empty()), (201, false));
        let got = house.get(path, &key).await;
        assert_eq!(
            (status(&got), header(&got, "content-type"), header(&got, "etag")),
            (200, "image/png", &*tag)
        );
        assert_eq!(
            (header(&got, "content-length"), header(&got, "x-content-type-options")),
            ("10", "nosniff")
        );
        assert!(header(&got, "last-modified").ends_with(" GMT"));
        assert_eq!(got.text().await.expect("a body"), "0123456789");
        let head = house.ask(Method::HEAD, path, &key).send().await.expect("an answer");
        assert_eq!(
            (status(&head), header(&head, "content-length"), header(&head, "etag")),
            (200, "10", &*tag)
        );
        let with = async |name: &str, value: &str, more: Option<(&str, &str)>| {
            let mut request = house.ask(Method::GET, path, &key).header(name, value);
            if let Some((name, value)) = more {
                request = request.header(name, value);
            }
            let answer = request.send().await.expect("an answer");
            let (status, range) = (status(&answer), header(&answer, "content-range").to_owned());
            (status, range, answer.text().await.expect("a body"))
        };
        assert_eq!(with("if-none-match", &tag, None).await, (304, String::new(), String::new()));
        assert_eq!(with("if-none-match", "\"other\"", None).await.0, 200);
        for (range, expected, text) in [
            ("bytes=2-4", "bytes 2-4/10", "234"),
            ("bytes=7-", "bytes 7-9/10", "789"),
            ("bytes=-2", "bytes 8-9/10", "89"),
            ("bytes=5-999", "bytes 5-9/10", "56789"),
        ] {
            assert_eq!(with("range", range, None).await, (206, expected.to_owned(), text.to_owned()));
        }
        let outside = with("range", "bytes=10-", None).await;
        assert_eq!((outside.0, outside.1.as_str()), (416, "bytes */10"));
        assert_eq!(with("range", "bytes=2-4", Some(("if-range", &tag))).await.0, 206);
        assert_eq!(with("range", "bytes=2-4", Some(("if-range", "\"other\""))).await.2, "0123456789");
        assert_eq!(status(&house.put(path, &key, "").await), 201);
        let empty = house.get(path, &key).await;
        assert_eq!((status(&empty), header(&empty, "content-length")), (200, "0"));
        for expected in [204, 204] {
            let removed = house.ask(Method::DELETE, path, &key).send().await.expect("an answer");
            assert_eq!(status(&removed), expected);
        }
        assert_eq!(status(&house.get(path, &key).await), 404);
        let posted = house.ask(Method::POST, path, &key).send().await.expect("an answer");
        assert_eq!((status(&posted), header(&posted, "allow")), (405, "GET, HEAD, PUT, DELETE"));
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn large_objects_stream_through() {
    let bytes: Vec<u8> = (0..40_000_000_u32).map(|at| (at.wrapping_mul(2_654_435_761) >> 24) as u8).collect();
    for place in [Place::Memory, Place::Folder(PathBuf::from("objects"))] {
        let house = house_with(|objects| objects.place = place.clone()).await;
        let (path, key) = ("/v1/objects/inputs/1/film.mp4", house.keys.one.clone());
        assert_eq!(status(&house.put(path, &key, bytes.clone()).await), 201);
        assert!(house.get(path, &key).await.bytes().await.expect("a body") == bytes);
        let part = house.ask(Method::GET, path, &key).header("range", "bytes=20000000-29999999");
        let part = part.send().await.expect("an answer").bytes().await.expect("a body");
        assert!(part == bytes[20_000_000..30_000_000]);
    }
}

#[tokio::test(flavor = "multi_thread")]
async fn kinds_are_kept_where_the_store_can() {
    let house = House::open(&Plan::default()).await;
    let path = "/v1/objects/inputs/1/cat.png";
    let put = house.ask(Method::PUT, path, &house.keys.one).header("content-type", "image/x-cat").body("x");
    assert_eq!(status(&put.send().await.expect("an answer")), 201);
    assert_eq!(header(&house.get(path, &house.keys.one).await, "content-type"), "image/x-cat");
}

#[tokio::test(flavor = "multi_thread")]
async fn no_path_leads_out_of_the_store() {
    let house = house_with(|_| {}).await;
    let secret = house.folder.path().join("secret.png");
    std::fs::write(&secret, "secret").expect("written");
    let two = "/v1/objects/inputs/2/cat.png";
    assert_eq!(status(&house.put(two, &house.keys.two, "of another").await), 201);
    let before = files(house.folder.path()).len();
    for key in [
        "../secret.png",
        "inputs/1/../../../secret.png",
        "inputs/1/%2e%2e/%2e%2e/%2e%2e/secret.png",
        "inputs/1/%2E%2E%2F%2E%2E%2F%2E%2E%2Fsecret.png",
        "inputs/1/..%2f..%2f..%2fsecret.png",
        "inputs/1/%252e%252e/%252e%252e/%252e%252e/secret.png",
        "inputs/1/..\\..\\..\\secret.png",
        "inputs/1/%5c..%5c..%5csecret.png",
        "inputs/1/%c0%ae%c0%ae/secret.png",
        "inputs/1/../2/cat.png",
        "inputs/1/%2e%2e/2/cat.png",
        "inputs/1/./../2/cat.png",
        "inputs//1/cat.png",
        "inputs/1//cat.png",
        "inputs/01/cat.png",
        "/etc/passwd",
        "%2fetc%2fpasswd",
        ".staging/0",
        "inputs/1/a%00.png",
        "inputs/1/a%0d%0ax:y",
        "",
        "inputs",
        "inputs/1",
        "inputs/1/",
    ] {
        for method in ["GET", "PUT", "DELETE"] {
            let request = format!(
                "{method} /v1/objects/{key} HTTP/1.1\r\nhost: plane\r\nauthorization: Bearer {}\r\n\
                 content-length: 1\r\nconnection: close\r\n\r\nx",
                house.keys.one
            );
            let status = raw(&house, request.as_bytes()).await;
            assert!(matches!(status, 400 | 404), "{method} {key}: {status}");
        }
    }
    assert_eq!(files(house.folder.path()).len(), before, "nothing was written");
    assert_eq!(std::fs::read_to_string(&secret).expect("there"), "secret");
    assert_eq!(house.get(two, &house.keys.two).await.text().await.expect("a body"), "of another");
}

#[tokio::test(flavor = "multi_thread")]
async fn everybody_sees_the_own_only() {
    let house = house_with(|_| {}).await;
    let keys = house.keys.clone();
    let input = "/v1/objects/inputs/1/cat.png";
    for (key, expected) in [("hr_0_0", 401), (&*keys.two, 403), (&*keys.worker, 403), (&*keys.operator, 403)]
    {
        assert_eq!(status(&house.put(input, key, "x").await), expected, "{key}");
    }
    assert_eq!(status(&house.put(input, &keys.one, "x").await), 201);
    let nobody = house.client.get(house.url(input)).send().await.expect("an answer");
    assert_eq!(status(&nobody), 401);
    for (key, expected) in [(&keys.one, 200), (&keys.two, 404), (&keys.worker, 200), (&keys.operator, 200)] {
        assert_eq!(status(&house.get(input, key).await), expected, "{key}");
    }
    let removed = house.ask(Method::DELETE, input, &keys.two).send().await.expect("an answer");
    assert_eq!(status(&removed), 404);

    let job = house.submit(None).await;
    let mut worker = house.worker().await;
    let start = worker.work().await;
    assert_eq!(start.job, job);
    let output = format!("/v1/objects/outputs/{job}/dance.webp");
    assert_eq!(status(&house.put(&output, &keys.one, "x").await), 403, "only workers write outputs");
    assert_eq!(status(&house.put("/v1/objects/outputs/job-0-99/a", &keys.worker, "x").await), 409);
    assert_eq!(status(&house.put(&output, &keys.worker, "made").await), 201);
    let look = house.service.handle.look(|plane| control::service::join_token(plane.rules()));
    let own = look.await.expect("the plane lives");
    assert_eq!(
        status(&house.put(&output, &own, "made").await),
        201,
        "workers that the plane launched write, too"
    );
    assert_eq!(status(&house.put(input, &own, "x").await), 403);
    assert_eq!(status(&house.get(input, &own).await), 200);
    worker.finish(&start, vec![format!("outputs/{job}/dance.webp")]).await;
    let late = house.put(&output, &keys.worker, "changed").await;
    assert_eq!(status(&late), 409, "what a job has given never changes");
    for (key, expected) in [(&keys.one, 200), (&keys.two, 404), (&keys.worker, 200), (&keys.operator, 200)] {
        assert_eq!(status(&house.get(&output, key).await), expected, "{key}");
    }
    let made = house.get(&output, &keys.one).await;
    assert_eq!(header(&made, "content-type"), "image/webp");
    assert_eq!(made.text().await.expect("a body"), "made");
    let (_, shown) = json_of(house.get(&format!("/v1/jobs/{job}"), &keys.one).await).await;
    assert_eq!(shown["outputs"], json!([format!("outputs/{job}/dance.webp")]));

    for (input, expected) in [
        ("inputs/1/cat.png".to_owned(), 202),
        (format!("outputs/{job}/dance.webp"), 202),
        ("inputs/2/cat.png".to_owned(), 422),
        ("outputs/job-0-99/dance.webp".to_owned(), 422),
        ("cat.png".to_owned(), 422),
    ] {
        let body = json!({ "payload": {}, "inputs": [input] });
        assert_eq!(house.try_submit(&keys.one, body.clone()).await.0, expected, "{body}");
        let batch = json!([body, { "payload": {} }]).to_string();
        let answer = house.ask(Method::POST, "/v1/jobs/batch", &keys.one).body(batch).send().await;
        let (_, answer) = json_of(answer.expect("an answer")).await;
        assert_eq!(
            (&answer["jobs"][0]["status"], &answer["jobs"][1]["status"]),
            (&expected.into(), &202.into())
        );
    }
    let theirs = json!({ "payload": {}, "inputs": [format!("outputs/{job}/dance.webp")] });
    assert_eq!(house.try_submit(&keys.two, theirs).await.0, 422);
}

#[tokio::test(flavor = "multi_thread")]
async fn uploads_that_are_not_whole_leave_nothing() {
    let house = house_with(|objects| {
        objects.bytes_max = 1000;
        objects.patience = Duration::from_millis(300);
    })
    .await;
    let (path, key) = ("/v1/objects/inputs/1/a.bin", house.keys.one.clone());
    let stated = house.put(path, &key, vec![0; 1001]).await;
    assert_eq!(status(&stated), 413);
    let chunks = futures_util::stream::iter((0..11).map(|_| Ok::<_, std::io::Error>(vec![0; 100])));
    let streamed = house.put(path, &key, reqwest::Body::wrap_stream(chunks)).await;
    assert_eq!(status(&streamed), 413);
    let slow = futures_util::stream::iter([Ok::<_, std::io::Error>(vec![0; 100])])
        .chain(futures_util::stream::pending());
    assert_eq!(status(&house.put(path, &key, reqwest::Body::wrap_stream(slow)).await), 408);
    let head = format!(
        "PUT {path} HTTP/1.1\r\nhost: plane\r\nauthorization: Bearer {key}\r\ncontent-length: 900\r\n\r\nhalf"
    );
    let mut stream = TcpStream::connect(house.service.address).await.expect("a connection");
    stream.write_all(head.as_bytes()).await.expect("sent");
    tokio::time::sleep(Duration::from_millis(50)).await;
    drop(stream);
    for name in ["if-none-match", "content-encoding"] {
        let request = house.ask(Method::PUT, path, &key).header(name, "*").body("x");
        assert_eq!(status(&request.send().await.expect("an answer")), 400, "{name}");
    }
    assert_eq!(status(&house.get(path, &key).await), 404);
    let objects = house.folder.path().join("objects");
    let until = tokio::time::Instant::now() + SOON;
    while !files(&objects).is_empty() {
        assert!(tokio::time::Instant::now() < until, "left: {:?}", files(&objects));
        tokio::time::sleep(Duration::from_millis(10)).await;
    }
    assert_eq!(status(&house.put(path, &key, vec![0; 1000]).await), 201);
    let in_the_way = house.put("/v1/objects/inputs/1/a.bin/b", &key, "x").await;
    assert_eq!(status(&in_the_way), 409);
}

/// The whole is written before anything is read, as simple clients do: more than connections hold by themselves.
#[tokio::test(flavor = "multi_thread")]
async fn clients_that_write_first_hear_why_they_were_refused() {
    let house = house_with(|objects| objects.bytes_max = 1000).await;
    let key = house.keys.one.clone();
    const BYTES: usize = 6 << 20;
    for (extra, expected) in [("", 413), ("if-none-match: *\r\n", 400)] {
        let head = format!(
            "PUT /v1/objects/inputs/1/a.bin HTTP/1.1\r\nhost: plane\r\nauthorization: Bearer {key}\r\n{extra}\
             content-length: {BYTES}\r\n\r\n"
        );
        let request = [head.as_bytes(), &vec![7; BYTES]].concat();
        assert_eq!(raw(&house, &request).await, expected);
    }
    // Who asks first is answered at once and sends nothing.
    let head = format!(
        "PUT /v1/objects/inputs/1/a.bin HTTP/1.1\r\nhost: plane\r\nauthorization: Bearer {key}\r\n\
         expect: 100-continue\r\ncontent-length: {BYTES}\r\n\r\n"
    );
    assert_eq!(raw(&house, head.as_bytes()).await, 413);
}

#[tokio::test(flavor = "multi_thread")]
async fn no_room_is_507_and_nothing_is_half_written() {
    let house = house_with(|objects| objects.reserve = u64::MAX).await;
    let (code, problem) = json_of(house.put("/v1/objects/inputs/1/a", &house.keys.one, "x").await).await;
    assert_eq!((code, &problem["type"]), (507, &"urn:headroom:problem:no-room".into()));
    assert!(files(&house.folder.path().join("objects")).is_empty());
}

/// A disk that is really full. It needs the right to mount one.
#[tokio::test(flavor = "multi_thread")]
async fn full_disk_is_507_and_nothing_is_half_written() {
    let disk = tempfile::tempdir().expect("a folder");
    let mount = |program: &str, arguments: &[&str]| {
        let mut command = std::process::Command::new(program);
        command.args(arguments).arg(disk.path()).stderr(std::process::Stdio::null());
        command.status().is_ok_and(|status| status.success())
    };
    if !mount("mount", &["-t", "tmpfs", "-o", "size=1m", "tmpfs"]) {
        println!("skipped: no right to mount a small disk here");
        return;
    }
    let house = house_with(|objects| objects.place = Place::Folder(disk.path().join("objects"))).await;
    let (path, key) = ("/v1/objects/inputs/1/a", house.keys.one.clone());
    let small = house.put(path, &key, vec![1; 1000]).await;
    let chunks = futures_util::stream::iter((0..64).map(|_| Ok::<_, std::io::Error>(vec![0; 65_536])));
    let (code, problem) = json_of(house.put(path, &key, reqwest::Body::wrap_stream(chunks)).await).await;
    let kept = house.get(path, &key).await.bytes().await.expect("a body");
    let left = files(&disk.path().join("objects")).len();
    let again = house.put(path, &key, vec![2; 500_000]).await;
    house.close().await;
    assert!(mount("umount", &[]));
    assert_eq!((status(&small), code, &problem["type"]), (201, 507, &"urn:headroom:problem:no-room".into()));
    assert_eq!(
        (kept.len(), left, status(&again)),
        (1000, 1, 201),
        "the old object is whole, and there is room again"
    );
}

#[tokio::test(flavor = "multi_thread")]
async fn signed_urls_open_one_object_for_some_time() {
    let house = house_with(|_| {}).await;
    let keys = house.keys.clone();
    let sign = async |key: &str, body: serde_json::Value| {
        let request = house.ask(Method::POST, "/v1/objects/sign", key).body(body.to_string());
        json_of(request.send().await.expect("an answer")).await
    };
    let object = "inputs/1/cat.png";
    for (key, body, expected) in [
        (&keys.one, json!({ "key": object, "method": "DELETE" }), 422),
        (&keys.one, json!({ "key": object, "method": "PUT", "expires_s": 0 }), 422),
        (&keys.one, json!({ "key": object, "method": "PUT", "expires_s": 604_801 }), 422),
        (&keys.one, json!({ "key": object, "method": "PUT", "extra": 1 }), 422),
        (&keys.one, json!({ "key": "../a", "method": "PUT" }), 400),
        (&keys.two, json!({ "key": object, "method": "PUT" }), 403),
        (&keys.two, json!({ "key": object, "method": "GET" }), 404),
        (&keys.one, json!({ "key": "outputs/job-0-1/a", "method": "PUT" }), 403),
        (&"hr_0_0".to_owned(), json!({ "key": object, "method": "PUT" }), 401),
    ] {
        assert_eq!(sign(key, body.clone()).await.0, expected, "{body}");
    }
    let (code, put) = sign(&keys.one, json!({ "key": object, "method": "PUT", "expires_s": 60 })).await;
    let put = put["url"].as_str().expect("a URL").to_owned();
    assert!(code == 200 && put.starts_with(&house.url("/v1/objects/inputs/1/cat.png?")), "{put}");
    let send = async |method: Method, url: &str| {
        let request = house.client.request(method, url).body("bytes");
        status(&request.send().await.expect("an answer"))
    };
    assert_eq!(send(Method::PUT, &put).await, 201);
    for (method, url) in [
        (Method::GET, put.clone()),
        (Method::DELETE, put.clone()),
        (Method::PUT, put.replace("cat.png", "dog.png")),
        (Method::PUT, put.replace("expires=", "expires=1")),
        (Method::PUT, format!("{}0", &put[..put.len() - 1])),
        (Method::PUT, format!("{}1", &put[..put.len() - 1])),
    ] {
        let code = send(method.clone(), &url).await;
        assert!(code == 403 || (url == put && method == Method::PUT), "{method} {url}: {code}");
    }
    let (_, get) = sign(&keys.one, json!({ "key": object, "method": "GET", "expires_s": 2 })).await;
    let get = get["url"].as_str().expect("a URL");
    assert_eq!((send(Method::GET, get).await, send(Method::HEAD, get).await), (200, 200));
    assert_eq!(send(Method::PUT, get).await, 403);
    tokio::time::sleep(Duration::from_millis(2100)).await;
    assert_eq!(send(Method::GET, get).await, 403, "its time is over");
}

#[tokio::test(flavor = "multi_thread")]
async fn old_objects_go_and_those_of_live_jobs_stay() {
    const DAY: Duration = Duration::from_secs(24 * 3600);
    let house = house_with(|objects| objects.sweep_every = Duration::from_millis(100)).await;
    let (one, worker_key) = (house.keys.one.clone(), house.keys.worker.clone());
    let (ended, live) = (house.submit(None).await, house.submit(None).await);
    let mut names = vec![("inputs/1/young".to_owned(), 30, true), ("inputs/1/old".to_owned(), 32, false)];
    for (job, name, days, stays) in [
        (ended, "young", 6, true),
        (ended, "old", 8, false),
        (live, "old", 8, true),
        (ended, "b/c", 8, false),
    ] {
        names.push((format!("outputs/{job}/{name}"), days, stays));
    }
    for (name, ..) in &names {
        let key = if name.starts_with("inputs") { &one } else { &worker_key };
        assert_eq!(status(&house.put(&format!("/v1/objects/{name}"), key, "x").await), 201, "{name}");
    }
    house.cancel(ended).await;
    let objects = house.folder.path().join("objects");
    for (name, days, _) in &names {
        let file = std::fs::File::options().write(true).open(objects.join(name)).expect("the file");
        file.set_modified(SystemTime::now() - DAY * *days).expect("changed");
    }
    let until = tokio::time::Instant::now() + SOON;
    let is_there = |name: &str| objects.join(name).exists();
    while names.iter().any(|(name, _, stays)| !stays && is_there(name)) {
        assert!(tokio::time::Instant::now() < until, "something old is left");
        tokio::time::sleep(Duration::from_millis(20)).await;
    }
    tokio::time::sleep(Duration::from_millis(300)).await;
    for (name, _, stays) in &names {
        assert_eq!(is_there(name), *stays, "{name}");
    }
    assert!(!objects.join(format!("outputs/{ended}/b")).exists(), "and no empty folders are left");
}
