//! Tokens that stand for names: the same name has the same token, and no token tells its name without the key.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read;
use std::path::Path;

use anyhow::{Context, bail};
use sha2::{Digest, Sha256};

/// Letters and digits of a token.
const ALPHABET: &[u8; 32] = b"abcdefghijklmnopqrstuvwxyz234567";
/// Length of a token: it fits where the kernel keeps the name of a thread. The first letter is always the same, the others
/// hold 55 bits.
pub const LEN: usize = 12;
/// So many tokens are kept at hand; with more the memory begins anew.
const KNOWN: usize = 1 << 16;
/// A key shorter than this could be tried out.
const SHORTEST_KEY: usize = 16;

/// Makes tokens: SHA-256 over a secret key and the name, cut.
pub struct Tokens {
    key: [u8; 32],
    known: HashMap<Vec<u8>, [u8; LEN]>,
}

impl Tokens {
    /// With a key that nobody will ever know.
    ///
    /// # Errors
    /// Where the system has no random numbers.
    pub fn random() -> anyhow::Result<Tokens> {
        const SOURCE: &str = "/dev/urandom";
        let mut key = [0; 32];
        let mut read = || File::open(SOURCE)?.read_exact(&mut key);
        read().with_context(|| format!("{SOURCE} gives no key: give one with --key FILE"))?;
        Ok(Tokens::with(&key))
    }

    /// With the key in a file, so that two redacted traces have the same tokens.
    ///
    /// # Errors
    /// When the file cannot be read, or is too short to be a secret.
    pub fn of_file(path: &Path) -> anyhow::Result<Tokens> {
        let mut key = Vec::new();
        let file = File::open(path).with_context(|| format!("--key {}", path.display()))?;
        file.take(1 << 20).read_to_end(&mut key).with_context(|| format!("--key {}", path.display()))?;
        if key.len() < SHORTEST_KEY {
            bail!(
                "--key {}: expected at least {SHORTEST_KEY} random bytes, found {}: `head -c 32 /dev/urandom` makes a key",
                path.display(),
                key.len()
            );
        }
        Ok(Tokens::with(&key))
    }

    /// With these bytes as the key.
    pub fn with(key: &[u8]) -> Tokens {
        Tokens { key: Sha256::digest(key).into(), known: HashMap::new() }
    }

    /// The token of a name.
    pub fn word(&mut self, name: &[u8]) -> [u8; LEN] {
        if let Some(token) = self.known.get(name) {
            return *token;
        }
        let digest = self.digest("word", name);
        let mut token = [b'x'; LEN];
        token[1..].iter_mut().zip(bits(&digest)).for_each(|(letter, five)| *letter = ALPHABET[five]);
        if self.known.len() == KNOWN {
            self.known.clear();
        }
        // A long name is not worth its memory.
        if name.len() <= 256 {
            self.known.insert(name.to_vec(), token);
        }
        token
    }

    /// Eight bytes for eight bytes or fewer: ids that other rows refer to.
    pub fn id(&self, id: u64) -> u64 {
        let digest = self.digest("id", &id.to_le_bytes());
        u64::from_le_bytes(*digest.first_chunk().unwrap_or(&[0; 8]))
    }

    /// As many bytes as `bytes` has. Their first eight are [`Tokens::id`] of the first eight: a binary's number is made of them.
    pub fn bytes(&self, bytes: &[u8]) -> Vec<u8> {
        let mut token =
            bytes.first_chunk().map_or(Vec::new(), |id| self.id(u64::from_le_bytes(*id)).to_le_bytes().into());
        let mut round = self.digest("bytes", bytes);
        while token.len() < bytes.len() {
            token.extend(&round);
            round = self.digest("more", &round);
        }
        token.truncate(bytes.len());
        token
    }

    fn digest(&self, what: &str, bytes: &[u8]) -> [u8; 32] {
        let hash = Sha256::new().chain_update(self.key).chain_update(what).chain_update([0]).chain_update(bytes);
        hash.finalize().into()
    }
}

/// Five bits at a time.
fn bits(digest: &[u8; 32]) -> impl Iterator<Item = usize> + '_ {
    (0..).map(|i| {
        let (byte, shift) = (i * 5 / 8, i * 5 % 8);
        (usize::from(digest[byte]) | usize::from(digest[byte + 1]) << 8) >> shift & 31
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn stable_by_key_and_different_by_name() {
        let (mut a, mut b, mut c) = (Tokens::with(b"one"), Tokens::with(b"one"), Tokens::with(b"two"));
        assert_eq!(a.word(b"nginx"), b.word(b"nginx"));
        assert_ne!(a.word(b"nginx"), c.word(b"nginx"));
        let all: std::collections::HashSet<_> = (0..2 * KNOWN).map(|i| a.word(&i.to_le_bytes())).collect();
        assert_eq!((all.len(), a.word(b"nginx")), (2 * KNOWN, b.word(b"nginx")));
        assert!(all.iter().all(|t| t[0] == b'x' && t[1..].iter().all(|c| ALPHABET.contains(c))));
    }

    #[test]
    fn build_ids_keep_their_length_and_lead_to_their_number() {
        let tokens = Tokens::with(b"key");
        let id: Vec<u8> = (0..70).collect();
        let token = tokens.bytes(&id);
        assert_eq!(token.len(), 70);
        let number = |bytes: &[u8]| u64::from_le_bytes(*bytes.first_chunk().unwrap());
        assert_eq!(number(&token), tokens.id(number(&id)));
        assert_ne!(token, id);
        assert_eq!((tokens.bytes(&id[..5]).len(), tokens.bytes(&[]).len()), (5, 0));
        assert_ne!(tokens.bytes(&id)[8..20], tokens.bytes(&id[..20])[8..20]);
    }

    #[test]
    fn a_key_file_must_be_a_secret() {
        let path = std::env::temp_dir().join(format!("bpfrec-key-{}", std::process::id()));
        std::fs::write(&path, b"hunter2").unwrap();
        let error = Tokens::of_file(&path).err().unwrap().to_string();
        assert!(error.contains("expected at least 16 random bytes, found 7"), "{error}");
        std::fs::write(&path, [7; 32]).unwrap();
        assert_eq!(Tokens::of_file(&path).unwrap().word(b"a"), Tokens::with(&[7; 32]).word(b"a"));
        std::fs::remove_file(&path).unwrap();
        assert!(Tokens::of_file(&path).err().unwrap().to_string().contains("bpfrec-key-"));
    }
}
