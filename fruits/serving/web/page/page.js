// The page: a photo from the camera or a file, made smaller in the browser, sent to the server; its answer as text.
// Text from the server is set with textContent only, so a label cannot become markup.

const MAX_SIDE = 1024; // pixels; the server needs 224
const SMALL_BYTES = 1_000_000; // a smaller file of at most MAX_SIDE pixels is sent as it is
const MAX_BYTES = 20_000_000; // the server's limit
const JPEG_QUALITY = 0.92;
const RETRIES = 3; // while the server is busy
const MAX_LABEL = 120; // characters shown
const MAX_CAPTION = 40;
const TOKEN_KEY = "fruits-token";

const REASONS = {
  "uncertain": "It could be one of several fruits. A sharper photo of one fruit, filling the picture, may help.",
  "unlike-anything": "The photo is unlike everything this recogniser was trained on.",
};

const element = (id) => document.getElementById(id);
const percent = new Intl.NumberFormat(undefined, { style: "percent", maximumFractionDigits: 1 });
const shorten = (text, most = MAX_LABEL) => (text.length > most ? `${text.slice(0, most)}…` : text);

class Message extends Error {} // an error whose text is shown

let stream = null;
let photoUrl = null;
let running = false;

// -- making the photo smaller

function toJpeg(source, width, height) {
  const scale = Math.min(1, MAX_SIDE / Math.max(width, height));
  const canvas = document.createElement("canvas");
  canvas.width = Math.max(1, Math.round(width * scale));
  canvas.height = Math.max(1, Math.round(height * scale));
  const context = canvas.getContext("2d");
  context.fillStyle = "white"; // behind transparent pixels, as on the server
  context.fillRect(0, 0, canvas.width, canvas.height);
  context.imageSmoothingQuality = "high";
  context.drawImage(source, 0, 0, canvas.width, canvas.height);
  return new Promise((resolve, reject) =>
    canvas.toBlob((blob) => (blob ? resolve(blob) : reject(new Message("The photo cannot be read."))), "image/jpeg", JPEG_QUALITY));
}

async function smaller(file) {
  let bitmap;
  try {
    bitmap = await createImageBitmap(file);
  } catch {
    // A format that this browser cannot show, such as TIFF; the server decides.
    if (file.size > MAX_BYTES) throw new Message("The file is larger than 20 MB, and this browser cannot make it smaller.");
    return file;
  }
  try {
    if (file.size <= SMALL_BYTES && Math.max(bitmap.width, bitmap.height) <= MAX_SIDE) return file;
    return await toJpeg(bitmap, bitmap.width, bitmap.height);
  } finally {
    bitmap.close();
  }
}

// -- asking the server

function askToken() {
  const dialog = element("token-dialog");
  element("token").value = "";
  dialog.returnValue = "";
  dialog.showModal();
  return new Promise((resolve, reject) =>
    dialog.addEventListener("close", () => {
      if (dialog.returnValue !== "save") return reject(new Message("Without the token, the server does not answer."));
      localStorage.setItem(TOKEN_KEY, element("token").value.replace(/[^\x21-\x7e]/g, "")); // a header allows nothing else
      resolve();
    }, { once: true }));
}

const pause = (seconds) => new Promise((resolve) => setTimeout(resolve, 1000 * seconds));

async function send(photo) {
  const token = localStorage.getItem(TOKEN_KEY);
  const headers = { "Content-Type": photo.type || "application/octet-stream" };
  if (token) headers.Authorization = `Bearer ${token}`;
  try {
    return await fetch("v1/recognise?nearest=true", { method: "POST", body: photo, headers });
  } catch {
    throw new Message("The server cannot be reached. Check the connection, and try again.");
  }
}

async function ask(photo) {
  for (let busy = 0; ;) {
    const response = await send(photo);
    if (response.ok) return response.json();
    if (response.status === 401) {
      localStorage.removeItem(TOKEN_KEY);
      await askToken();
    } else if (response.status === 503 && busy < RETRIES) {
      busy += 1;
      await pause(Number(response.headers.get("Retry-After")) || 1);
    } else if (response.status === 422) {
      throw new Message("This photo cannot be used: it seems to be damaged. Try another one.");
    } else {
      const answer = await response.json().catch(() => ({}));
      throw new Message(answer.error?.message || `The server answered with status ${response.status}.`);
    }
  }
}

// -- showing the answer

function item(tag, parts) {
  const made = document.createElement(tag);
  made.append(...parts);
  return made;
}

function text(tag, className, content) {
  const made = document.createElement(tag);
  if (className) made.className = className;
  made.textContent = content;
  return made;
}

function scoreItem({ label, score }) {
  const meter = document.createElement("meter");
  meter.value = score;
  meter.setAttribute("aria-hidden", "true"); // the number beside it says the same
  return item("li", [text("span", "label", shorten(label)), text("span", "score", percent.format(score)), meter]);
}

function neighbourItem({ label, image }) {
  const parts = [];
  if (image) {
    const picture = document.createElement("img");
    picture.src = image;
    picture.alt = "";
    parts.push(picture);
  }
  return item("li", [...parts, text("span", "", shorten(label, MAX_CAPTION))]);
}

function show(answer, photo) {
  if (photoUrl) URL.revokeObjectURL(photoUrl);
  photoUrl = URL.createObjectURL(photo);
  element("photo").src = photoUrl;
  const known = !answer.unknown;
  element("answer").textContent = known ? `${shorten(answer.label)}, ${percent.format(answer.confidence)}` : "Not recognised";
  element("explanation").textContent = known ? "" : REASONS[answer.reason] ?? "";
  element("confidences").hidden = answer.reason === "unlike-anything"; // they compare the known fruits only
  element("scores").replaceChildren(...answer.predictions.map(scoreItem));
  element("nearest").hidden = known || answer.nearest.length === 0;
  element("neighbours").replaceChildren(...(known ? [] : answer.nearest.map(neighbourItem)));
  element("model").textContent = `Recogniser ${answer.model.version}`;
  element("result").hidden = false;
  element("answer").focus(); // a screen reader continues with the answer
}

async function recognise(makePhoto) {
  if (running) return;
  running = true;
  element("error").textContent = "";
  element("status").textContent = "Looking at the photo…";
  document.body.classList.add("busy");
  try {
    const photo = await makePhoto();
    show(await ask(photo), photo);
  } catch (error) {
    element("result").hidden = true;
    element("error").textContent = error instanceof Message ? error.message : "This photo cannot be used. Try another one.";
    if (!(error instanceof Message)) console.error(error);
  } finally {
    element("status").textContent = "";
    document.body.classList.remove("busy");
    running = false;
  }
}

// -- the camera

function closeCamera() {
  stream?.getTracks().forEach((track) => track.stop());
  stream = null;
  element("video").srcObject = null;
  element("camera").hidden = true;
  element("actions").hidden = false;
}

async function openCamera() {
  try {
    stream = await navigator.mediaDevices.getUserMedia({ video: { facingMode: "environment", width: { ideal: 1280 } } });
  } catch {
    element("error").textContent = "The camera cannot be used here. Take or choose a photo instead.";
    offerCapture();
    return;
  }
  element("error").textContent = "";
  element("video").srcObject = stream;
  element("capture").disabled = true; // until there is a picture
  element("camera").hidden = false;
  element("actions").hidden = true;
}

function cameraReady() {
  element("capture").disabled = false;
  element("capture").focus();
}

function capture() {
  const video = element("video");
  recognise(() => toJpeg(video, video.videoWidth, video.videoHeight)).then(closeCamera);
}

function offerCapture() {
  element("open-camera").hidden = true;
  element("shot-picker").hidden = false;
}

function chosen(event) {
  const [file] = event.target.files;
  event.target.value = ""; // the same file can be chosen again
  if (file) recognise(() => smaller(file));
}

element("shot").addEventListener("change", chosen);
element("file").addEventListener("change", chosen);
element("open-camera").addEventListener("click", openCamera);
element("close-camera").addEventListener("click", closeCamera);
element("capture").addEventListener("click", capture);
element("video").addEventListener("playing", cameraReady);
element("token-cancel").addEventListener("click", () => element("token-dialog").close(""));
if (navigator.mediaDevices?.getUserMedia) { // needs HTTPS or localhost
  element("open-camera").hidden = false;
  element("shot-picker").hidden = true;
}
