#include "report/html.h"

#include <inttypes.h>
#include <math.h>
#include <stdio.h>
#include <string.h>

/* ---- words and numbers ----------------------------------------------------------------------- */

void fn_html_words(fn_text *html, const char *words) {
  fn_text clean = {0};
  fn_text_add_utf8(&clean, words);
  for (const char *c = clean.data; c && *c; c++) {
    switch (*c) {
      case '&': fn_text_add_bytes(html, "&amp;", 5); break;
      case '<': fn_text_add_bytes(html, "&lt;", 4); break;
      case '>': fn_text_add_bytes(html, "&gt;", 4); break;
      case '"': fn_text_add_bytes(html, "&quot;", 6); break;
      case '\'': fn_text_add_bytes(html, "&#39;", 5); break;
      default: fn_text_add_bytes(html, c, 1);
    }
  }
  fn_text_free(&clean);
}

void fn_html_number(fn_text *html, double value, int digits) {
  if (isfinite(value))
    fn_text_add(html, "%.*g", digits, value);
  else
    fn_text_add(html, "–");
}

void fn_html_base64(fn_text *html, const void *bytes, size_t count) {
  static const char digit[] = "ABCDEFGHIJKLMNOPQRSTUVWXYZabcdefghijklmnopqrstuvwxyz0123456789+/";
  const unsigned char *b = bytes;
  for (size_t i = 0; i < count; i += 3) {
    const size_t n = count - i < 3 ? count - i : 3;
    const unsigned group = (unsigned)b[i] << 16 | (n > 1 ? (unsigned)b[i + 1] << 8 : 0) |
                           (n > 2 ? (unsigned)b[i + 2] : 0);
    const char four[] = {digit[group >> 18], digit[group >> 12 & 63],
                         n > 1 ? digit[group >> 6 & 63] : '=', n > 2 ? digit[group & 63] : '='};
    fn_text_add_bytes(html, four, 4);
  }
}

void fn_html_head(fn_text *html, const char *words) {
  fn_text_add(html, "<th>");
  fn_html_words(html, words);
  fn_text_add(html, "</th>");
}

void fn_html_head_number(fn_text *html, const char *words) {
  fn_text_add(html, "<th class=\"n\">");
  fn_html_words(html, words);
  fn_text_add(html, "</th>");
}

void fn_html_cell(fn_text *html, const char *words) {
  fn_text_add(html, "<td>");
  fn_html_words(html, words);
  fn_text_add(html, "</td>");
}

void fn_html_cell_number(fn_text *html, double value, int digits) {
  fn_text_add(html, "<td class=\"n\">");
  fn_html_number(html, value, digits);
  fn_text_add(html, "</td>");
}

void fn_html_cell_count(fn_text *html, int64_t value) {
  if (value < 0)
    fn_text_add(html, "<td class=\"n\">–</td>");
  else
    fn_text_add(html, "<td class=\"n\">%" PRId64 "</td>", value);
}

void fn_html_swatch(fn_text *html, int colour, bool dashed) {
  fn_text_add(html,
              "<svg class=\"swatch\" width=\"26\" height=\"10\" viewBox=\"0 0 26 10\" "
              "aria-hidden=\"true\"><path class=\"line c%d%s\" d=\"M1 5H25\"/></svg>",
              colour % FN_HTML_COLOURS, dashed ? " dashed" : "");
}

/* ---- the page's frame ------------------------------------------------------------------------ */

// Curves: Okabe & Ito 2008, lighter on a dark ground.
static const char style[] =
    ":root{color-scheme:light dark;--ground:#fff;--raised:#f6f7f9;--ink:#1d2229;--soft:#5c6672;"
    "--rule:#dde1e6;--good:#177245;--warn:#9a6700;--bad:#b42318;--c0:#0072b2;--c1:#d55e00;"
    "--c2:#009e73;--c3:#c4598f;--c4:#a67c00;--c5:#2b8fc9;--c6:#404040}\n"
    "@media (prefers-color-scheme:dark){:root{--ground:#14171b;--raised:#1d2127;--ink:#e6e9ed;"
    "--soft:#9aa4b0;--rule:#333a43;--good:#4cc38a;--warn:#e2b340;--bad:#ff7b72;--c0:#58b0ea;"
    "--c1:#ff914d;--c2:#3ccfa0;--c3:#eb9cc8;--c4:#e8c04a;--c5:#9ad4f7;--c6:#c9ced4}}\n"
    "*{box-sizing:border-box}\n"
    "body{margin:0 auto;padding:1.5rem 1.25rem 4rem;max-width:84rem;background:var(--ground);"
    "color:var(--ink);font:15px/1.5 system-ui,-apple-system,'Segoe UI',Roboto,'Helvetica Neue',"
    "Arial,sans-serif}\n"
    "h1{font-size:1.6rem;margin:.2rem 0}h2{font-size:1.2rem;margin:2.4rem 0 .8rem;"
    "border-bottom:1px solid var(--rule);padding-bottom:.3rem}h3{font-size:1rem;"
    "margin:1.4rem 0 .5rem}\n"
    "p.about{color:var(--soft);margin:.2rem 0 1rem}nav a{margin-right:1rem;color:var(--c0)}\n"
    ".grid{display:grid;grid-template-columns:repeat(auto-fit,minmax(min(100%,30rem),1fr));"
    "gap:1.25rem}\n"
    "figure{margin:0;padding:.75rem;background:var(--raised);border:1px solid var(--rule);"
    "border-radius:8px;min-width:0}figcaption{font-weight:600;font-size:.9rem;margin-bottom:.4rem}"
    "\n"
    "figure img{display:block;max-width:100%;height:auto;margin:0 auto;background:#fff;"
    "border-radius:4px}\n"
    "svg.curves{display:block;width:100%;height:auto}svg text{fill:var(--soft);"
    "font:11px system-ui,sans-serif}\n"
    ".frame{fill:none;stroke:var(--soft);stroke-width:1}.tick{stroke:var(--rule);stroke-width:1}"
    ".level{stroke:var(--soft);stroke-dasharray:2 3}\n"
    ".line{fill:none;stroke-width:1.8;stroke-linejoin:round}.dashed{stroke-dasharray:6 4}"
    ".band{stroke:none;opacity:.18}\n"
    ".legend{list-style:none;display:flex;flex-wrap:wrap;gap:.15rem 1rem;margin:.4rem 0 0;"
    "padding:0;font-size:.85rem;color:var(--soft)}.swatch{vertical-align:middle;"
    "margin-right:.35rem}\n"
    ".scroll{overflow-x:auto;margin-bottom:1rem}table{border-collapse:collapse;font-size:.88rem}"
    "th,td{padding:.3rem .6rem;border-bottom:1px solid var(--rule);text-align:left;"
    "vertical-align:top}th{color:var(--soft);font-weight:600;white-space:nowrap}"
    "td.n,th.n{text-align:right;font-variant-numeric:tabular-nums;white-space:nowrap}"
    "tr.best td.best{font-weight:700}td.key{font-family:ui-monospace,Menlo,Consolas,monospace;"
    "font-size:.82rem}td.value{overflow-wrap:anywhere}\n"
    "pre{background:var(--raised);border:1px solid var(--rule);border-radius:6px;padding:.7rem;"
    "overflow-x:auto;font-size:.82rem}details{margin:.8rem 0}summary{cursor:pointer;"
    "font-weight:600}\n"
    ".state{padding:.05rem .5rem;border-radius:999px;border:1px solid currentColor;"
    "font-size:.8rem;white-space:nowrap}.good{color:var(--good)}.warn{color:var(--warn)}"
    ".bad{color:var(--bad)}.quiet{color:var(--soft)}\n";

static void add_line_colours(fn_text *html) {
  for (int i = 0; i < FN_HTML_COLOURS; i++)
    fn_text_add(html, ".line.c%d{stroke:var(--c%d)}.band.c%d,.dot.c%d{fill:var(--c%d)}\n", i, i, i,
                i, i);
}

void fn_html_begin(fn_text *html, const char *title) {
  fn_text_add(html, "<!DOCTYPE html>\n<html lang=\"en\">\n<head>\n<meta charset=\"utf-8\"/>\n"
                    "<meta name=\"viewport\" content=\"width=device-width, initial-scale=1\"/>\n"
                    "<meta name=\"generator\" content=\"fieldnet report\"/>\n<title>");
  fn_html_words(html, title);
  fn_text_add(html, "</title>\n<style>\n");
  fn_text_add_bytes(html, style, sizeof style - 1);
  add_line_colours(html);
  fn_text_add(html, "</style>\n</head>\n<body>\n<h1>");
  fn_html_words(html, title);
  fn_text_add(html, "</h1>\n");
}

void fn_html_end(fn_text *html) {
  fn_text_add(html, "</body>\n</html>\n");
}
