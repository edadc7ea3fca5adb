//! One HTML file: markup, styles, scripts and data. Nothing of it comes from elsewhere, and nothing of the host's is markup:
//! names are data, and scripts put them into the page as text. The content-security policy allows these very scripts and
//! styles, by their hashes, and no other thing.

use base64::Engine as _;
use base64::engine::general_purpose::STANDARD;
use sha2::{Digest, Sha256};

/// What all pages have.
pub(crate) const PAGE_CSS: &str = include_str!("web/page.css");
/// Elements, numbers, unpacking, light and dark.
pub(crate) const BASE_JS: &str = include_str!("web/base.js");
/// The flamegraph.
pub(crate) const FLAME_JS: &str = include_str!("web/flame.js");

/// The pieces of a page. Scripts come in this order; they share one scope.
pub(crate) struct Pieces {
    pub(crate) title: &'static str,
    pub(crate) styles: &'static [&'static str],
    pub(crate) scripts: &'static [&'static str],
    pub(crate) body: &'static str,
}

/// `report.html`.
pub(super) const REPORT: Pieces = Pieces {
    title: "bpfrec report",
    styles: &[include_str!("vendor/uPlot.min.css"), PAGE_CSS],
    scripts: &[
        include_str!("vendor/uPlot.iife.min.js"),
        BASE_JS,
        FLAME_JS,
        include_str!("web/data.js"),
        include_str!("web/charts.js"),
        include_str!("web/app.js"),
    ],
    body: include_str!("web/body.html"),
};

/// The whole file. `data`: what `unpack` in `web/base.js` reads, see [`super::columns`].
pub(crate) fn html(pieces: &Pieces, data: &[u8]) -> String {
    let hash = |text: &str| format!("'sha256-{}'", STANDARD.encode(Sha256::digest(text.as_bytes())));
    let hashes = |texts: &[&str]| texts.iter().map(|text| hash(text)).collect::<Vec<_>>().join(" ");
    let tags =
        |tag: &str, texts: &[&str]| texts.iter().map(|text| format!("<{tag}>{text}</{tag}>\n")).collect::<String>();
    format!(
        "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\">\n\
             <meta http-equiv=\"Content-Security-Policy\" content=\"default-src 'none'; script-src {}; style-src {}; \
             base-uri 'none'; form-action 'none'\">\n\
             <meta name=\"viewport\" content=\"width=device-width, initial-scale=1\">\n\
             <meta name=\"referrer\" content=\"no-referrer\">\n<title>{}</title>\n{}</head>\n<body>\n{}\n\
             <script type=\"application/octet-stream\" id=\"data\">{}</script>\n{}</body>\n</html>\n",
        hashes(pieces.scripts),
        hashes(pieces.styles),
        pieces.title,
        tags("style", pieces.styles),
        pieces.body,
        STANDARD.encode(data),
        tags("script", pieces.scripts),
    )
}

#[cfg(test)]
mod tests {
    use super::*;

    const PAGES: [&Pieces; 2] = [&REPORT, &crate::diff::page::PAGE];

    #[test]
    fn no_piece_ends_its_own_element() {
        for script in PAGES.iter().flat_map(|page| page.scripts) {
            assert!(!script.to_lowercase().contains("</script") && !script.contains("<!--"));
            assert!(!script.contains('\r'), "a browser hashes line ends as it reads them");
        }
        for style in PAGES.iter().flat_map(|page| page.styles) {
            assert!(!style.to_lowercase().contains("</style"));
        }
    }

    #[test]
    fn data_is_no_markup() {
        let data = b"</script><script>alert(1)</script>\xe2\x80\xa8";
        for page in PAGES {
            let html = html(page, data);
            let pieces = page.scripts.len() + page.styles.len();
            assert!(!html.contains("alert(1)") && html.matches("'sha256-").count() == pieces);
        }
    }
}
