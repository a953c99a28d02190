//! What every server that is started here needs: ports, an answer over HTTP, and an end.

use std::{
    io::{BufRead as _, BufReader, Read as _, Write as _},
    net::{TcpListener, TcpStream},
    path::Path,
    process::{Child, Command, Stdio},
    time::Duration,
};

/// Ports that nobody listens on now. They are held together, so that none comes twice.
pub(crate) fn free_ports(count: usize) -> Result<Vec<u16>, String> {
    let open: Result<Vec<TcpListener>, _> = (0..count).map(|_| TcpListener::bind("127.0.0.1:0")).collect();
    let open = open.map_err(|error| error.to_string())?;
    open.iter()
        .map(|socket| socket.local_addr().map(|addr| addr.port()).map_err(|error| error.to_string()))
        .collect()
}

/// The body that a server of this machine answers a GET with, if each part of it comes within `answer_max`.
pub(crate) fn http_get(port: u16, path: &str, answer_max: Duration) -> std::io::Result<String> {
    let mut socket = TcpStream::connect(("127.0.0.1", port))?;
    socket.set_read_timeout(Some(answer_max))?;
    write!(socket, "GET {path} HTTP/1.0\r\nHost: localhost\r\n\r\n")?;
    let mut reader = BufReader::new(socket);
    let mut line = String::new();
    while reader.read_line(&mut line)? > 2 {
        line.clear();
    }
    let mut body = String::new();
    reader.read_to_string(&mut body)?;
    Ok(body)
}

/// Ends a server when this process ends in whatever way, and removes its temporary directory: it waits for the end of its input.
pub(crate) fn guard(server: &Child, temporary: Option<&Path>) -> Result<Child, String> {
    Command::new("sh")
        .args(["-c", "read -r _; kill -9 \"$1\"; test -z \"$2\" || rm -rf \"$2\"", "guard"])
        .arg(server.id().to_string())
        .arg(temporary.unwrap_or(Path::new("")))
        .stdin(Stdio::piped())
        .stdout(Stdio::null())
        .stderr(Stdio::null())
        .spawn()
        .map_err(|error| format!("sh: {error}"))
}
