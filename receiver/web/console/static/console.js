// Menus, copy buttons, charts drawn from the tables beside them, and announcements for screen readers. Pages work without it.
(() => {
    "use strict";
    document.documentElement.classList.add("js");
    const dark = matchMedia("(prefers-color-scheme: dark)");
    const numbers = new Intl.NumberFormat(document.documentElement.lang || undefined, {maximumFractionDigits: 2});
    const pen = document.createElement("canvas").getContext("2d");
    const FONT = "12px system-ui, sans-serif";
    const DASHES = [[], [7, 4], [2, 3], [9, 3, 2, 3]];

    function announce(text) {
        const region = document.getElementById("announce");  // the one live region of the page
        if (!region || !text) return;
        region.textContent = "";
        setTimeout(() => { region.textContent = text; }, 50);
    }

    const ending = document.title.slice(document.title.lastIndexOf(" · "));
    function renewTitle() {
        const {title} = document.querySelector("[data-title]")?.dataset ?? {};
        if (title) document.title = title + ending;
    }

    const announced = new Map();  // id of each [data-announce]: its last text
    function announceChanges() {
        for (const {id, dataset: {announce: text}} of document.querySelectorAll("[data-announce][id]")) {
            if (announced.has(id) && announced.get(id) !== text) announce(text);
            announced.set(id, text);
        }
    }

    async function copy(text) {
        if (navigator.clipboard) return navigator.clipboard.writeText(text);
        // Over plain HTTP there is no clipboard API.
        const focused = document.activeElement;
        const field = Object.assign(document.createElement("textarea"), {className: "off-page", value: text, readOnly: true});
        document.body.append(field);
        field.select();
        const done = document.execCommand("copy");
        field.remove();
        focused?.focus({preventScroll: true});
        if (!done) throw new Error("not copied");
    }

    document.addEventListener("click", async event => {
        const button = event.target.closest?.("[data-copy]");
        const source = button && document.querySelector(button.dataset.copy);
        if (!source) return;
        try {
            await copy(source.value ?? source.href ?? source.textContent.trim());
            button.dataset.done = "";
            setTimeout(() => delete button.dataset.done, 2000);
            announce(button.dataset.copied);
        } catch {
            source.closest("details")?.setAttribute("open", "");
            getSelection().selectAllChildren(source);  // so that the keyboard copies it
            announce(button.dataset.failed);
        }
    });

    // Menus are details: without this they close by their own button alone.
    function closeMenus(but) {
        for (const menu of document.querySelectorAll("details.menu[open]")) if (!menu.contains(but)) menu.open = false;
    }
    document.addEventListener("click", event => closeMenus(event.target));
    document.addEventListener("keydown", event => {
        const menu = event.key === "Escape" && document.querySelector("details.menu[open]");
        if (!menu) return;
        closeMenus();
        menu.querySelector("summary").focus();
    });

    // What was typed and not taken, as a session had ended: kept in this tab until the same user has logged in again.
    // Never a secret; gone with a log-out, with the tab, and as soon as a page shows that it was taken or left.
    const DRAFTS = "receiver drafts";
    const {user, typedAgain} = document.body.dataset;
    const TYPED = "textarea, select, input:not([type=hidden], [type=password], [type=file])";
    let [sent, leaves] = [null, false];

    function typedFields(form) {
        return [...form.elements].filter(field => field.matches(TYPED) && !("secret" in field.dataset));
    }

    function nameOf(form) {
        const hidden = [...form.querySelectorAll("input[type=hidden]:not([name=csrf_token], [name=next])")];
        const path = new URL(form.getAttribute("action") ?? "", location.href).pathname;
        return JSON.stringify([path, ...hidden.map(({name, value}) => [name, value])]);
    }

    function isChanged(field) {
        const options = [...field.options ?? []];
        if (options.length && !options.some(option => option.defaultSelected)) return field.selectedIndex > 0;
        if (options.length) return options.some(option => option.selected !== option.defaultSelected);
        return field.value !== field.defaultValue || field.checked !== field.defaultChecked;
    }

    function keepDrafts() {
        if (!user || leaves) return;
        const forms = [...document.querySelectorAll("main form")].map(form => [form, typedFields(form)]);
        const kept = forms.filter(([form, fields]) => fields.length && (form === sent || fields.some(isChanged)));
        if (!kept.length) return;
        const state = ({name, value, checked, selectedOptions}) =>
            [name, value, checked, selectedOptions && [...selectedOptions].map(option => option.value)];
        const drafts = Object.fromEntries(kept.map(([form, fields]) => [nameOf(form), fields.map(state)]));
        sessionStorage.setItem(DRAFTS, JSON.stringify({user, drafts}));
    }

    function fillIn(form, draft) {
        const fields = typedFields(form);
        if (fields.length !== draft.length || fields.some(({name}, i) => name !== draft[i][0])) return false;
        for (const [i, field] of fields.entries()) {
            const [, value, checked, selected] = draft[i];
            if (field.options) for (const option of field.options) option.selected = selected.includes(option.value);
            else if (["checkbox", "radio"].includes(field.type)) field.checked = checked;
            else field.value = value;
        }
        for (let at = form.closest("details"); at; at = at.parentElement.closest("details")) at.open = true;
        form.prepend(Object.assign(document.createElement("p"), {className: "hint", textContent: typedAgain}));
        return true;
    }

    function returnDrafts() {
        const kept = JSON.parse(sessionStorage.getItem(DRAFTS) ?? "null");
        if (!kept) return;
        if (!user || document.querySelector("[data-keeps-drafts]")) {
            sessionStorage.setItem(DRAFTS, JSON.stringify({...kept, lost: true}));
            return;
        }
        const theirs = kept.lost && kept.user === user;
        const found = theirs && [...document.querySelectorAll("main form")].filter(form => kept.drafts[nameOf(form)]);
        if (theirs && !found.length) return;  // the form's page may come later
        sessionStorage.removeItem(DRAFTS);
        if (theirs && found.filter(form => fillIn(form, kept.drafts[nameOf(form)])).length) announce(typedAgain);
    }

    document.addEventListener("submit", ({target}) => {
        sent = target;
        leaves = nameOf(target).includes("/logout");
        if (leaves) sessionStorage.removeItem(DRAFTS);
    });
    addEventListener("pagehide", keepDrafts);
    returnDrafts();

    // A field of several lines, so that pasted ones stay apart: Enter still sends it, unless it ends a word of an input method.
    document.addEventListener("keydown", event => {
        const field = event.target.closest?.("[data-enter-submits]");
        if (!field || event.key !== "Enter" || event.shiftKey || event.isComposing) return;
        event.preventDefault();
        field.form.requestSubmit();
    });

    const drawn = new Map();  // each .plot: its uPlot and the data of the drawing
    const resized = new ResizeObserver(entries => {
        for (const {target, contentRect: {width}} of entries) {
            if (width > 0) drawn.get(target)?.plot.setSize({width, height: width < 480 ? 180 : 220});
        }
    });

    function read(table) {
        const heads = [...table.tHead.rows[0].cells];
        const rows = [...table.tBodies].flatMap(body => [...body.rows]);
        const columns = heads.map((head, i) => ({head, i})).filter(({head, i}) => i && head.dataset.plot !== "no");
        const number = cell => (cell?.dataset.value ? Number(cell.dataset.value) : null);
        return {
            first: heads[0].textContent.trim(),
            labels: rows.map(row => row.cells[0].textContent.trim()),
            xs: rows.map((row, i) => number(row.cells[0]) ?? i),
            names: columns.map(({head}) => head.textContent.trim()),
            colours: columns.map(({head}, i) => `--${head.dataset.colour ?? `chart-${i % 4 + 1}`}`),
            values: columns.map(({i}) => rows.map(row => number(row.cells[i]))),
        };
    }

    function options({first, labels, xs, names, colours, values}, {chart, unit = "", stacked}) {
        const colour = name => getComputedStyle(document.documentElement).getPropertyValue(name).trim();
        const [bars, count, beside] = [chart === "bars", xs.length, stacked === undefined ? names.length : 1];
        const shares = unit.trim() === "%";
        const from = bars ? -0.5 : xs[0] - (count > 1 ? 0 : 1);
        const to = bars ? count - 0.5 : xs.at(-1) + (count > 1 ? 0 : 1);
        const format = value => (value === null || value === undefined ? "–" : numbers.format(value) + unit);
        pen.font = FONT;
        const room = 16 + Math.max(...labels.map(label => pen.measureText(label).width));
        const axis = {stroke: colour("--mute"), font: FONT, grid: {stroke: colour("--line"), width: 1}, ticks: {show: false}};
        const whole = values.flat().every(value => value === null || Number.isInteger(value));
        const steps = Array.from({length: 12}, (_, power) => [1, 2, 5].map(step => step * 10 ** power)).flat();
        // As many labels as fit, with the texts of the table.
        const splits = plot => {
            let [last, perUnit] = [-Infinity, (plot.width - 60 - room / 2) / (to - from)];
            return plot.data[0].filter(x => (x - last) * perUnit >= room && (last = x, true));
        };
        const paths = s => (bars ? uPlot.paths.bars({disp: {
            x0: {unit: 2, values: () => xs.map((_, i) => (i + 0.1 + 0.8 * (beside > 1 ? s / beside : 0)) / count)},
            size: {unit: 2, values: () => xs.map(() => 0.76 / count / beside)},
        }}) : undefined);
        return {
            width: 400, height: 200, padding: [8, Math.max(12, room / 2), 0, 0],  // half of the last label stands there
            cursor: {drag: {x: false, y: false}, points: {show: !bars}},
            legend: {markers: {width: bars ? 0 : 2, dash: (_, s) => (s > 1 ? "dashed" : "solid")}},
            scales: {x: {time: false, range: [from, to]}, y: {range: (_, __, max) => [0, shares ? 100 : max > 0 ? max * 1.05 : 1]}},
            axes: [
                {...axis, size: 28, grid: {show: false}, splits, values: (plot, at) => at.map(x => labels[plot.data[0].indexOf(x)])},
                {...axis, size: 52, incrs: whole ? steps : undefined, values: (_, at) => at.map(format)},
            ],
            series: [
                {label: first, value: (_, __, ___, i) => labels[i] ?? ""},
                ...names.map((label, s) => ({
                    label, paths: paths(s), value: (_, __, ___, i) => (i == null ? "" : format(values[s][i])),
                    stroke: colour(colours[s]), fill: bars ? colour(colours[s]) : undefined,
                    width: bars ? 0 : 2, dash: bars ? undefined : DASHES[s % 4], points: {show: !bars && count < 40, size: 6, fill: colour("--card")},
                })),
            ],
        };
    }

    function draw(figure) {
        const table = document.querySelector(figure.dataset.table);
        const box = figure.querySelector(".plot");
        if (!table?.tHead || !box || !window.uPlot) return;
        const found = read(table);
        const origin = JSON.stringify([found, figure.dataset, dark.matches]);
        const before = drawn.get(box);
        if (before?.origin === origin && box.contains(before.plot.root)) return;
        before?.plot.destroy();
        drawn.delete(box);
        if (!found.labels.length || !found.names.length) return;
        // Stacked bars are sums, the tallest drawn first; uPlot draws series in their order.
        const sums = found.values.map((_, s) => found.xs.map((_, i) =>
            found.values.slice(s).reduce((sum, series) => sum + (series[i] ?? 0), 0)));
        const data = [figure.dataset.chart === "bars" ? found.xs.map((_, i) => i) : found.xs,
            ...(figure.dataset.stacked === undefined ? found.values : sums)];
        drawn.set(box, {origin, plot: new uPlot(options(found, figure.dataset), data, box)});
        resized.observe(box);
    }

    function refresh() {
        for (const [box, {plot}] of drawn) {
            if (box.isConnected) continue;
            plot.destroy();  // and its observer ends with its box
            drawn.delete(box);
        }
        document.querySelectorAll("figure[data-chart]").forEach(draw);
        renewTitle();
        announceChanges();
    }

    document.addEventListener("keydown", event => {
        const field = document.querySelector("[name=wanted]");
        if (event.key !== "/" || !field || event.ctrlKey || event.metaKey || event.altKey || event.target.closest("input, textarea, select, [contenteditable]")) return;
        event.preventDefault();
        field.focus();
        field.select();
    });

    // The tail: what has come stands in a hidden body of its table, until nobody holds what is shown.
    const tail = document.getElementById("tail");
    function pull() {
        const [fresh, rows, hold, state, after] = ["new", "rows", "hold", "state", "after"].map(name => document.getElementById(`tail-${name}`));
        const known = new Set([...rows.rows].map(row => row.id));
        for (const row of [...fresh.rows].reverse()) {  // some come twice, as the server reads a few seconds back
            if (known.has(row.id)) row.remove();
            known.add(row.id);
        }
        const most = Number(tail.dataset.most);
        [...fresh.rows].slice(most).forEach(row => row.remove());
        const count = fresh.rows.length;
        if (count) after.value = [after.value, ...[...fresh.rows].map(row => row.id.slice(1))].sort().at(-1);
        const held = hold.getAttribute("aria-pressed") === "true" || rows.closest(".scroll").matches(":hover, :focus-within");
        state.dataset.usual ??= state.textContent;
        state.textContent = held ? state.dataset.held.replace("{count}", count < most ? count : `${most}+`) : state.dataset.usual;
        if (held || !count) return;
        const all = [...fresh.rows, ...[...rows.rows].filter(row => row.id)].sort((a, b) => (a.id < b.id ? 1 : -1));
        rows.replaceChildren(...all.slice(0, most));
    }
    if (tail) {
        document.getElementById("tail-hold").addEventListener("click", ({currentTarget: button}) => {
            button.setAttribute("aria-pressed", button.getAttribute("aria-pressed") !== "true");
            pull();
        });
        for (const change of ["mouseover", "mouseout", "focusin", "focusout"]) tail.addEventListener(change, () => setTimeout(pull));
        document.addEventListener("htmx:after:swap", pull);
    }

    document.addEventListener("htmx:after:swap", refresh);
    dark.addEventListener("change", refresh);
    refresh();
})();
