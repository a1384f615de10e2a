// The scenes of a clip: captions that can be edited, and that its player shows as subtitles; and the captions as files.
(() => {
  const { element: build } = window.captioner;

  const card = (shown, edit) => {
    const text = edit ?? shown.caption;
    const image = build("img", { src: `gradio_api/file=${shown.path}`, alt: text, loading: "lazy" });
    const there = build("button", { type: "button", className: "there", ariaLabel: `Go to ${shown.name}` }, image);
    const caption = build("textarea", { value: text, rows: 2, ariaLabel: `Caption of ${shown.name}` });
    let before = text;
    const write = (written) => {
      caption.value = image.alt = written;
      subtitles();
    };
    caption.addEventListener("focus", () => (before = caption.value));
    caption.addEventListener("input", () => write(caption.value.replaceAll("\n", " ")));  // it is one line
    caption.addEventListener("keydown", (event) => {
      if (event.isComposing) return;
      if (event.key === "Escape") write(before);
      if (event.key !== "Enter") return;
      event.preventDefault();
      const all = [...document.querySelectorAll("#scenes textarea")];
      all[all.indexOf(caption) + (event.shiftKey ? -1 : 1)]?.focus();
    });
    return build("li", { shown, caption }, there, caption, build("small", { textContent: shown.name, title: shown.name }));
  };

  // The gallery grows as captions come: what is there already, and was edited perhaps, is left alone.
  const scenes = (element, props, watch) => {
    const edits = new Map();  // by name: to caption again does not undo what a person wrote
    const section = element.querySelector("section"), list = element.querySelector(".gallery");
    const update = () => {
      const all = props.value ?? [], old = list.firstChild?.shown;
      if (all.length < list.children.length || (old && JSON.stringify(old) !== JSON.stringify(all[0])))
        list.replaceChildren();
      list.append(...all.slice(list.children.length).map((shown) => card(shown, edits.get(shown.name))));
      section.hidden = !all.length;
      subtitles();
    };
    element.addEventListener("input", ({ target }) => edits.set(target.closest("li").shown.name, target.value));
    element.addEventListener("click", ({ target }) => {
      const button = target.closest(".download");
      if (button)
        download(button, () => [...list.children].map(({ shown, caption }) => ({ ...shown, caption: caption.value.trim() })));
    });
    watch("value", update);
    update();
  };

  // The clip's captions as its player's subtitles, as they are edited.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const player = () => document.querySelector("#player video");
  const subtitles = () => {
    const video = player(), all = [...document.querySelectorAll("#scenes .gallery li")];
    if (!video) return;
    const track = video.textTracks[0] ?? video.addTextTrack("captions", "captioner", "en");
    track.mode = "showing";
    while (track.cues.length) track.removeCue(track.cues[0]);
    for (const { shown, caption } of all)
      if (caption.value.trim()) track.addCue(new VTTCue(shown.start, shown.end, plain(caption.value)));
  };
  document.addEventListener("error", ({ target }) => {
    if (target !== player()) return;  // AVI, say
    target.insertAdjacentHTML("afterend", "<p class='hint'>This browser does not play such clips.</p>");
    target.hidden = true;
  }, true);
  document.addEventListener("click", (event) => {
    const there = event.target.closest?.(".there"), video = player();
    if (!there || !video) return;
    video.currentTime = there.closest("li").shown.start + 0.01;  // not the last frame of the scene before
    video.scrollIntoView({ block: "nearest", behavior: "smooth" });
  });

  // The captions as a file, in the form that the button names.
  const SILENCE = { error: "The server does not answer: try again." };
  const asked = async (format, captions) => {
    const body = JSON.stringify({ format, captions }), headers = { "Content-Type": "application/json" };
    const answer = await fetch(format === "inside" ? "inside" : "download", { method: "POST", headers, body }).catch(() => null);
    return answer?.ok ? { answer } : ((await answer?.json().catch(() => null)) ?? SILENCE);
  };
  // `captions` gives what is there; `send` sends uploads that the server has deleted once more, and says if it could.
  const download = async (button, captions, send) => {
    const place = button.closest("section").querySelector(".downloading"), form = button.dataset.format;
    place.textContent = captions().length ? "" : "There are no captions.";
    if (!captions().length) return;
    button.disabled = true;
    let said = await asked(form, captions());
    if (said.missing && (await send(said.missing))) said = await asked(form, captions());
    button.disabled = false;
    if (said.error) {
      place.textContent = said.error;
      return;
    }
    const { answer } = said;
    const link = build("a", { href: URL.createObjectURL(await answer.blob()) });
    const [, file] = /filename="(.+)"/.exec(answer.headers.get("Content-Disposition"));
    const clip = captions()[0].file;  // players look for subtitles under the clip's own name
    link.download = clip ? clip.replace(/\.\w+$/, "") + file.slice(file.lastIndexOf(".")) : file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };

  Object.assign(window.captioner, { scenes, download });
})();
