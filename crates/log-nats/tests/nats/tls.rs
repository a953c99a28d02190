//! A bus that speaks TLS alone and wants to see certificates.

use std::path::{Path, PathBuf};

use rcgen::{BasicConstraints, CertificateParams, IsCa, Issuer, KeyPair};
use tempfile::TempDir;
use weir_core::ErrorKind;
use weir_log_nats::{Bus, Config};
use weir_test_servers::nats;

use crate::world::{self, ONE};

struct Signed {
    cert: PathBuf,
    key: PathBuf,
}

fn sign(dir: &Path, name: &str, issuer: &Issuer<'_, KeyPair>) -> Signed {
    let key_pair = KeyPair::generate().unwrap();
    let params = CertificateParams::new(vec!["localhost".to_owned(), "127.0.0.1".to_owned()]).unwrap();
    let signed = params.signed_by(&key_pair, issuer).unwrap();
    let (cert, key) = (dir.join(format!("{name}.pem")), dir.join(format!("{name}.key")));
    std::fs::write(&cert, signed.pem()).unwrap();
    std::fs::write(&key, key_pair.serialize_pem()).unwrap();
    Signed { cert, key }
}

/// With both it works; without a client certificate, or with authorities that did not sign the server's, it does not.
#[tokio::test]
async fn servers_and_clients_show_each_other_certificates() {
    let dir = TempDir::new().unwrap();
    let mut authority = CertificateParams::new(vec![]).unwrap();
    authority.is_ca = IsCa::Ca(BasicConstraints::Unconstrained);
    let authority_key = KeyPair::generate().unwrap();
    let ca = dir.path().join("ca.pem");
    std::fs::write(&ca, authority.self_signed(&authority_key).unwrap().pem()).unwrap();
    let issuer = Issuer::new(authority, authority_key);
    let (server, client) = (sign(dir.path(), "server", &issuer), sign(dir.path(), "client", &issuer));
    let extra = format!(
        "tls {{\n  cert_file: \"{}\"\n  key_file: \"{}\"\n  ca_file: \"{}\"\n  verify: true\n}}\n",
        server.cert.display(),
        server.key.display(),
        ca.display()
    );
    let Some(bus) = world::own(nats::Options { extra, ..nats::Options::default() }) else { return };
    let both = Config {
        ca_file: Some(ca),
        cert_file: Some(client.cert),
        key_file: Some(client.key),
        connect_timeout: std::time::Duration::from_secs(10),
        ..world::config(&bus.servers(), 1)
    };
    let connected = Bus::connect(&both, world::options()).await.unwrap();
    assert_eq!(world::publish(&*connected.log(), ONE, 1).await, 1);

    let short = std::time::Duration::from_millis(600);
    let nobody = Config { cert_file: None, key_file: None, connect_timeout: short, ..both.clone() };
    let stranger = Config { ca_file: None, connect_timeout: short, ..both };
    for config in [nobody, stranger] {
        let error = Bus::connect(&config, world::options()).await.err().unwrap();
        assert_eq!(error.kind(), ErrorKind::Unavailable, "{error}");
    }
}
