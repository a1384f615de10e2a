// The server judges what is a picture, not the file's name: whatever is chosen, dropped or pasted gets there, and the
// answer is a caption or a sentence that says what is wrong. Gradio would refuse a HEIC photo that the system has no
// type for, and says only "Invalid file type" to others.
(() => {
  const typed = (files) => {
    const transfer = new DataTransfer();
    for (const file of files)
      transfer.items.add(/^image\//.test(file.type) ? file : new File([file], file.name, { type: "image/x-unknown" }));
    return transfer;
  };
  const pictures = (files) => [...files].every((file) => /^image\//.test(file.type));
  const input = () => document.querySelector("#photo input[type=file]");
  document.addEventListener("click", () => {
    if (input()) input().accept = "image/*,.heic,.heif,.hif,.avif,.jp2,.psd,.tga";
  }, true);
  document.addEventListener("change", (event) => {
    if (event.target === input() && !pictures(event.target.files)) event.target.files = typed(event.target.files).files;
  }, true);
  document.addEventListener("drop", (event) => {
    if (!event.target.closest("#photo") || pictures(event.dataTransfer.files)) return;
    event.preventDefault();
    event.stopPropagation();
    const dataTransfer = typed(event.dataTransfer.files);
    event.target.dispatchEvent(new DragEvent("drop", { dataTransfer, bubbles: true, cancelable: true }));
  }, true);
  // Gradio gives its examples no name that a screen reader could say, and one of its buttons that of a message.
  new MutationObserver(() => {
    for (const button of document.querySelectorAll("#examples button.gallery-item:not([aria-label])")) {
      const file = button.querySelector("img")?.src.split("/").pop();
      if (file) button.setAttribute("aria-label", "Example: " + decodeURIComponent(file).slice(0, -".png".length));
    }
    for (const button of document.querySelectorAll('button[aria-label="common.upload"]'))
      button.title = button.ariaLabel = "Add more files";
  }).observe(document, { childList: true, subtree: true });
  document.addEventListener("paste", (event) => {
    if (!event.clipboardData.files.length || !input()) return;
    event.preventDefault();
    input().files = typed([event.clipboardData.files[0]]).files;
    input().dispatchEvent(new Event("change", { bubbles: true }));
  });

  // ---- a caption's words, sentences and copies ----

  // Where the model looked, over the photo: the model's grid, smoothed, dark where it did not look.
  let pinned = null;
  const veil = () => {
    const old = document.querySelector("#photo canvas.look");
    if (old) return old;
    const canvas = document.createElement("canvas");
    canvas.className = "look";
    canvas.setAttribute("aria-hidden", "true");
    return canvas;
  };
  const unlook = () => {
    document.querySelector("#photo canvas.look")?.remove();
  };
  const look = (word) => {
    const image = document.querySelector("#photo .image-frame img, #photo .image-container img");
    if (!image?.naturalWidth || !word.dataset.look) return;
    const cells = word.dataset.look.split(",").map(Number);
    const columns = Number(word.dataset.columns), rows = cells.length / columns;
    const small = document.createElement("canvas");
    small.width = columns;
    small.height = rows;
    const pixels = small.getContext("2d").createImageData(columns, rows);
    cells.forEach((value, cell) => pixels.data.set([10, 10, 20, 205 * (1 - value / 255)], 4 * cell));
    small.getContext("2d").putImageData(pixels, 0, 0);
    // The photo keeps its proportions inside the img element, and a small one its size.
    const box = image.getBoundingClientRect();
    const largest = getComputedStyle(image).objectFit === "scale-down" ? 1 : Infinity;
    const scale = Math.min(box.width / image.naturalWidth, box.height / image.naturalHeight, largest);
    const width = image.naturalWidth * scale, height = image.naturalHeight * scale;
    const canvas = veil(), place = document.querySelector("#photo");  // not nearer: Gradio builds that anew
    const origin = place.getBoundingClientRect();
    canvas.width = Math.round(width);
    canvas.height = Math.round(height);
    Object.assign(canvas.style, {
      left: `${box.left - origin.left - place.clientLeft + (box.width - width) / 2}px`,
      top: `${box.top - origin.top - place.clientTop + (box.height - height) / 2}px`,
      width: `${width}px`,
      height: `${height}px`,
    });
    const [left, top, right, bottom] = word.closest(".explained").dataset.window.split(",").map(Number);
    const context = canvas.getContext("2d");
    context.imageSmoothingQuality = "high";
    context.fillStyle = "rgb(10 10 20 / 80%)";  // what the model did not see
    context.fillRect(0, 0, canvas.width, canvas.height);
    const seen = [left * width, top * height, (right - left) * width, (bottom - top) * height];
    context.clearRect(...seen);
    context.drawImage(small, ...seen);
    place.append(canvas);
  };
  const pin = (word) => {
    document.querySelectorAll(".word[aria-pressed=true]").forEach((other) => other.setAttribute("aria-pressed", "false"));
    pinned = word;
    word?.setAttribute("aria-pressed", "true");
  };
  const wordOf = (event) => event.target.closest?.(".word");
  for (const type of ["pointerover", "focusin"])
    document.addEventListener(type, (event) => {
      if (wordOf(event)) look(wordOf(event));
    });
  for (const type of ["pointerout", "focusout"])
    document.addEventListener(type, (event) => {
      if (!wordOf(event)) return;
      if (pinned?.isConnected) look(pinned);
      else unlook();
    });
  document.addEventListener("keydown", (event) => {
    const sentence = event.target.closest?.(".sentence[contenteditable]");
    if (event.key === "Escape") {
      pin(null);
      unlook();
      if (sentence) edited(sentence, sentence.dataset.before);
    } else if (sentence && event.key === "Enter" && !event.isComposing) {
      event.preventDefault();
      edited(sentence, oneLine(sentence));
    }
  });
  addEventListener("resize", () => (pinned?.isConnected ? look(pinned) : unlook()));

  const copy = async (text) => {
    try {
      await navigator.clipboard.writeText(text);
    } catch {  // a page that is not served from this machine or with TLS has no clipboard
      const area = Object.assign(document.createElement("textarea"), { value: text });
      document.body.append(area);
      area.select();
      document.execCommand("copy");
      area.remove();
    }
  };
  // A sentence in a person's own words: how likely the model held its words is then no longer to be said.
  const oneLine = (sentence) => sentence.textContent.replace(/\s+/g, " ").trim();
  const edit = (sentence) => {
    sentence.dataset.before = sentence.textContent;
    Object.assign(sentence, { contentEditable: "plaintext-only", role: "textbox", ariaLabel: "The caption, to edit" });
    sentence.focus();
    getSelection().selectAllChildren(sentence);
    getSelection().collapseToEnd();
  };
  const edited = (sentence, text) => {
    const panel = sentence.closest(".panel"), button = sentence.closest(".explained").querySelector(".edit");
    sentence.textContent = text;
    for (const name of ["contenteditable", "role", "aria-label"]) sentence.removeAttribute(name);
    panel.classList.toggle("edited", panel.classList.contains("edited") || text !== sentence.dataset.before);
    Object.assign(button, { textContent: "Edit", ariaPressed: "false" });
    button.focus();
  };
  const quoted = (text) => `"${text.replaceAll("&", "&amp;").replaceAll('"', "&quot;")}"`;
  const asHtml = (name, text) => `<img src=${quoted(name)} alt=${quoted(text)}>`;
  document.addEventListener("click", async (event) => {
    const explained = event.target.closest?.(".explained");
    const word = wordOf(event), pick = event.target.closest?.(".pick"), button = event.target.closest?.(".copy");
    const editor = event.target.closest?.(".edit"), open = explained?.querySelector(".sentence[contenteditable]");
    if (word) {
      const again = word === pinned;
      pin(again ? null : word);
      if (again) unlook();
      else look(word);
    } else if (editor && open) {
      edited(open, oneLine(open));
    } else if (editor) {
      edit(explained.querySelector(".panel:not([hidden]) .sentence"));
      Object.assign(editor, { textContent: "Done", ariaPressed: "true" });
    } else if (pick) {
      if (open) edited(open, oneLine(open));
      explained.querySelectorAll(".panel").forEach((panel) => (panel.hidden = panel.dataset.place !== pick.dataset.place));
      explained.querySelectorAll(".pick").forEach((one) => one.setAttribute("aria-pressed", String(one === pick)));
      pin(null);
      unlook();
    } else if (button && explained) {
      const text = oneLine(explained.querySelector(".panel:not([hidden]) .sentence"));
      await copy(button.dataset.copies === "html" ? asHtml(explained.dataset.name, text) : text);
      const label = button.textContent;
      button.textContent = "Copied";
      setTimeout(() => (button.textContent = label), 1500);
    }
  });
  // Another photo, or none: what was looked at is gone.
  new MutationObserver(() => {
    if (document.querySelector("#photo canvas.look") && !document.querySelector(".words .word")) unlook();
    if (pinned && !pinned.isConnected) {
      pinned = null;
      unlook();
    }
  }).observe(document, { childList: true, subtree: true });

  // ---- many photos, and the scenes of a clip ----

  // The gallery grows as captions come: what is there already, and was edited perhaps, is left alone.
  const card = (shown, edit) => {
    const item = document.createElement("li");
    const image = Object.assign(document.createElement("img"), {
      src: `gradio_api/file=${shown.path}`, alt: edit ?? shown.caption, loading: "lazy",
    });
    const caption = Object.assign(document.createElement("textarea"), { value: edit ?? shown.caption, rows: 2 });
    caption.setAttribute("aria-label", `Caption of ${shown.name}`);
    caption.addEventListener("keydown", (event) => {
      if (event.key !== "Enter" || event.isComposing) return;
      event.preventDefault();
      caption.blur();
    });
    caption.addEventListener("input", () => {
      if (caption.value.includes("\n")) caption.value = caption.value.replaceAll("\n", " ");  // it is one line
      image.alt = caption.value;
      subtitles();
    });
    const name = Object.assign(document.createElement("small"), { textContent: shown.name, title: shown.name });
    if (shown.end === undefined) item.append(image);
    else {
      const there = Object.assign(document.createElement("button"), { type: "button", className: "there" });
      there.setAttribute("aria-label", `Go to ${shown.name}`);
      there.append(image);
      item.append(there);
    }
    item.append(caption, name);
    Object.assign(item, { shown, caption });
    return item;
  };
  const gallery = (element, props, watch) => {
    const edits = new Map();  // by name: to caption again does not undo what a person wrote
    const update = () => {
      const list = element.querySelector(".gallery"), all = props.value ?? [], old = list.firstChild?.shown;
      if (all.length < list.children.length || (old && JSON.stringify(old) !== JSON.stringify(all[0])))
        list.replaceChildren();
      list.append(...all.slice(list.children.length).map((shown) => card(shown, edits.get(shown.name))));
      subtitles();
    };
    element.addEventListener("input", ({ target }) => edits.set(target.closest("li").shown.name, target.value));
    watch("value", update);
    update();
  };

  // The clip's captions as its player's subtitles, as they are edited.
  const plain = (text) => text.replaceAll("&", "&amp;").replaceAll("<", "&lt;");
  const player = () => document.querySelector("#player video");
  const subtitles = () => {
    const video = player(), scenes = [...document.querySelectorAll("#scenes li")];
    if (!video) return;
    const track = video.textTracks[0] ?? video.addTextTrack("captions", "captioner", "en");
    track.mode = "showing";
    while (track.cues.length) track.removeCue(track.cues[0]);
    for (const { shown, caption } of scenes)
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

  const download = async ({ format, gallery }, button) => {
    const captions = [...document.querySelectorAll(`#${gallery} li`)].map(({ shown, caption }) => ({
      ...shown, caption: caption.value.trim(),
      ...(caption.value === shown.caption ? {} : { probability: null, alternatives: [] }),  // a person's own words
    }));
    const label = button.textContent;
    const answer = await fetch("download", {
      method: "POST", headers: { "Content-Type": "application/json" }, body: JSON.stringify({ format, captions }),
    }).catch(() => null);
    if (!answer?.ok) {
      button.textContent = "It failed: try again";
      setTimeout(() => (button.textContent = label), 3000);
      return;
    }
    const link = document.createElement("a");
    link.href = URL.createObjectURL(await answer.blob());
    const [, file] = /filename="(.+)"/.exec(answer.headers.get("Content-Disposition"));
    const clip = captions[0].file;  // players look for subtitles under the clip's own name
    link.download = clip ? clip.replace(/\.\w+$/, "") + file.slice(file.lastIndexOf(".")) : file;
    link.click();
    setTimeout(() => URL.revokeObjectURL(link.href), 60_000);
  };
  document.addEventListener("click", (event) => {
    const button = event.target.closest?.(".download");
    if (button) download(button.dataset, button);
  });

  window.captioner = { gallery };
})();
