//! One HTML file: markup, styles, scripts and data. Nothing of it comes from elsewhere, and nothing of the host's is markup:
//! names are data, and scripts put them into the page as text. The content-security policy allows these very scripts and
//! styles, by their hashes, and no other thing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

const STYLES: [&str; 2] = [include_str!("vendor/uPlot.min.css"), include_str!("web/page.css")];
/// In this order; they share one scope.
const SCRIPTS: [&str; 6] = [
    include_str!("vendor/uPlot.iife.min.js"),
    include_str!("web/base.js"),
    include_str!("web/flame.js"),
    include_str!("web/data.js"),
    include_str!("web/charts.js"),
    include_str!("web/app.js"),
];
const BODY: &str = include_str!("web/body.html");

/// The whole file. `data`: what `unpack` in `web/base.js` reads, see [`super::columns`].
pub(super) fn html(data: &[u8]) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())));
    let hashes = |texts: &[&str]| texts.iter().map(|text| hash(text)).collect::<Vec<_>>().join(" ");
    let tags =
        |tag: &str, texts: &[&str]| texts.iter().map(|text| format!("<{tag}>{text}</{tag}>\n")).collect::<String>();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src {}; style-src {}; \
             base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<title>bpfrec report</title>\n{}</head>\n<body>\n{}\n\
             <script type=\"application/octet-stream\" id=\"data\">{}</script>\n{}</body>\n</html>\n",
        hashes(&SCRIPTS),
        hashes(&STYLES),
        tags("style", &STYLES),
        BODY,
        STANDARD.encode(data),
        tags("script", &SCRIPTS),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn no_piece_ends_its_own_element() {
        for script in SCRIPTS {
            assert!(!script.to_lowercase().contains("</script") && !script.contains("<!--"));
            assert!(!script.contains('\r'), "a browser hashes line ends as it reads them");
        }
        for style in STYLES {
            assert!(!style.to_lowercase().contains("</style"));
        }
    }

    #[test]
    fn data_is_no_markup() {
        let data = b"</script><script>alert(1)</script>\xe2\x80\xa8";
        let html = html(data);
        assert!(!html.contains("alert(1)") && html.matches("'sha256-").count() == SCRIPTS.len() + STYLES.len());
    }
}
