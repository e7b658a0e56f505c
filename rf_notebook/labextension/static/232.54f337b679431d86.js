"use strict";(self.rspackChunkrf_notebook=self.rspackChunkrf_notebook||[]).push([[232],{475(r,e,o){var t=o(601),a=o.n(t),n=o(314),l=(o.n(n))()(a());l.push([r.id,`/* The sidebar, the status bar, the badge and saved panels; JupyterLab's own variables, so that every theme fits. */

.rfl-sidebar {
  background: var(--jp-layout-color1);
  color: var(--jp-ui-font-color1);
  font-size: var(--jp-ui-font-size1);
  min-width: 200px;
  overflow: auto !important;
}

.rfl-view {
  padding: 8px;
}

.rfl-sidebar h3 {
  color: var(--jp-ui-font-color2);
  font-size: 11px;
  letter-spacing: 0.04em;
  margin: 12px 0 4px;
  text-transform: uppercase;
}

.rfl-sidebar button:focus-visible,
.rfl-sidebar select:focus-visible,
.rfl-run:focus-visible,
.rfl-saved button:focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: 1px;
}

.rfl-dim {
  color: var(--jp-ui-font-color2);
}

.rfl-failed {
  color: var(--jp-error-color1);
}

.rfl-hint {
  color: var(--jp-ui-font-color2);
  padding: 8px 0;
}

.rfl-line {
  align-items: center;
  display: flex;
  gap: 6px;
  min-width: 0;
}

.rfl-name,
.rfl-knobs,
.rfl-state {
  min-width: 0;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-name {
  flex: 1;
  font-size: 14px;
}

.rfl-standing[data-standing='training'] {
  color: var(--jp-brand-color1);
}

.rfl-standing[data-standing='paused'],
.rfl-standing[data-standing='interrupted'] {
  color: var(--jp-warn-color1);
}

.rfl-standing[data-standing='error'] {
  color: var(--jp-error-color1);
}

.rfl-bar {
  background: var(--jp-border-color2);
  height: 2px;
  margin-top: 3px;
}

.rfl-bar > div {
  background: var(--jp-ui-font-color3);
  height: 100%;
}

.rfl-bar.rfl-whole {
  height: 4px;
}

.rfl-bar.rfl-whole > div {
  background: var(--jp-brand-color1);
}

.rfl-toolbar {
  align-items: center;
  display: flex;
  flex-wrap: wrap;
  gap: 4px;
  margin: 8px 0;
}

.rfl-sidebar button,
.rfl-sidebar select,
.rfl-saved select {
  background: var(--jp-layout-color1);
  border: 1px solid var(--jp-border-color1);
  border-radius: 3px;
  color: var(--jp-ui-font-color1);
  cursor: pointer;
  font: inherit;
  font-size: 12px;
  padding: 2px 7px;
}

.rfl-sidebar button:hover:enabled {
  background: var(--jp-layout-color2);
}

.rfl-sidebar button:disabled {
  color: var(--jp-ui-font-color3);
  cursor: default;
}

.rfl-runs,
.rfl-others ul {
  list-style: none;
  margin: 0;
  padding: 0;
}

.rfl-run {
  border-bottom: 1px solid var(--jp-border-color2);
  cursor: pointer;
  padding: 5px 4px 4px;
}

.rfl-run:hover {
  background: var(--jp-layout-color2);
}

.rfl-run[aria-selected='true'] {
  background: color-mix(in srgb, var(--jp-brand-color1) 18%, transparent);
}

.rfl-run b {
  white-space: nowrap;
}

.rfl-state {
  color: var(--jp-ui-font-color2);
  flex: 1;
}

.rfl-run[data-state='running'] .rfl-state {
  color: var(--jp-brand-color1);
}

.rfl-run[data-state='stopped'] .rfl-state {
  color: var(--jp-warn-color1);
}

.rfl-run[data-state='failed'] :is(.rfl-state, .rfl-knobs) {
  color: var(--jp-error-color1);
}

.rfl-run[data-state='completed'] .rfl-state {
  color: var(--jp-success-color1);
}

.rfl-value {
  font-variant-numeric: tabular-nums;
  white-space: nowrap;
}

.rfl-spark {
  flex: none;
}

.rfl-knobs {
  color: var(--jp-ui-font-color2);
  flex: 1;
  font-size: 12px;
}

.rfl-buttons {
  display: flex;
  flex: none;
  gap: 2px;
}

.rfl-sidebar .rfl-button {
  line-height: 16px;
  min-width: 22px;
  padding: 0 4px;
}

.rfl-dot {
  border-radius: 50%;
  display: inline-block;
  flex: none;
  height: 9px;
  margin-right: 4px;
  width: 9px;
}

.rfl-message {
  margin: 6px 0 0;
  min-height: 1.2em;
  overflow-wrap: anywhere;
}

.rfl-message[data-kind='refused'] {
  color: var(--jp-error-color1);
}

.rfl-message[data-kind='done'] {
  color: var(--jp-success-color1);
}

.rfl-message[data-kind='waiting'] {
  color: var(--jp-ui-font-color2);
}

.rfl-sidebar .rfl-other {
  border: 0;
  overflow: hidden;
  padding: 3px 4px;
  text-align: left;
  text-overflow: ellipsis;
  white-space: nowrap;
  width: 100%;
}

.rfl-recorded {
  align-items: center;
  display: flex;
  gap: 6px;
  justify-content: space-between;
  padding: 2px 4px;
}

.rfl-recorded > span {
  min-width: 0;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-hosted {
  margin: 8px;
}

.rfl-tab {
  background: var(--jp-layout-color1);
  overflow: auto;
  padding: 4px;
}

/* status bar and badge */
.rfl-status .rfl-status-button {
  background: none;
  border: 0;
  color: inherit;
  cursor: pointer;
  font: inherit;
  max-width: 460px;
  overflow: hidden;
  padding: 0 4px;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-badge {
  border: 1px solid var(--jp-border-color1);
  border-radius: 9px;
  font-size: 11px;
  line-height: 16px;
  padding: 0 7px;
  white-space: nowrap;
}

.rfl-badge[data-kind='reproducible'] {
  color: var(--jp-success-color1);
}

.rfl-badge[data-kind='changed'] {
  color: var(--jp-warn-color1);
}

/* saved panels */
.rfl-saved {
  border: 1px solid var(--jp-border-color2);
  border-radius: 6px;
  color: var(--jp-ui-font-color1);
  font-family: var(--jp-ui-font-family);
  font-size: 13px;
  overflow: auto;
  padding: 8px 10px;
}

.rfl-saved p {
  margin: 2px 0 6px;
  overflow-wrap: anywhere;
}

.rfl-chart {
  min-height: 260px;
  width: 100%;
}

.rfl-hover {
  font-variant-numeric: tabular-nums;
  min-height: 1.3em;
}

.rfl-scroller {
  max-height: 420px;
  overflow: auto;
}

.rfl-saved table {
  border-collapse: collapse;
  font-size: 13px;
}

.rfl-saved :is(th, td) {
  border-bottom: 1px solid var(--jp-border-color2);
  max-width: 260px;
  overflow: hidden;
  padding: 3px 9px;
  text-align: left;
  text-overflow: ellipsis;
  white-space: nowrap;
}

.rfl-saved th button {
  background: none;
  border: 0;
  color: var(--jp-ui-font-color2);
  cursor: pointer;
  font: inherit;
  font-weight: 600;
  padding: 0;
}

.rfl-unreadable {
  color: var(--jp-ui-font-color2);
  padding: 6px 10px;
}

/* The saved figures below a living panel of the same cell are for when the kernel is gone. */
.jp-OutputArea-child:has(.rf-panel) ~ .jp-OutputArea-child:has(.rf-static) {
  display: none;
}
`,""]),o.d(e,{},{A:l})},314(r){r.exports=function(r){var e=[];return e.toString=function(){return this.map(function(e){var o="",t=void 0!==e[5];return e[4]&&(o+="@supports (".concat(e[4],") {")),e[2]&&(o+="@media ".concat(e[2]," {")),t&&(o+="@layer".concat(e[5].length>0?" ".concat(e[5]):""," {")),o+=r(e),t&&(o+="}"),e[2]&&(o+="}"),e[4]&&(o+="}"),o}).join("")},e.i=function(r,o,t,a,n){"string"==typeof r&&(r=[[null,r,void 0]]);var l={};if(t)for(var i=0;i<this.length;i++){var s=this[i][0];null!=s&&(l[s]=!0)}for(var p=0;p<r.length;p++){var d=[].concat(r[p]);t&&l[d[0]]||(void 0!==n&&(void 0===d[5]||(d[1]="@layer".concat(d[5].length>0?" ".concat(d[5]):""," {").concat(d[1],"}")),d[5]=n),o&&(d[2]&&(d[1]="@media ".concat(d[2]," {").concat(d[1],"}")),d[2]=o),a&&(d[4]?(d[1]="@supports (".concat(d[4],") {").concat(d[1],"}"),d[4]=a):d[4]="".concat(a)),e.push(d))}},e}},601(r){r.exports=function(r){return r[1]}},72(r){var e=[];function o(r){for(var o=-1,t=0;t<e.length;t++)if(e[t].identifier===r){o=t;break}return o}function t(r,t){for(var a={},n=[],l=0;l<r.length;l++){var i=r[l],s=t.base?i[0]+t.base:i[0],p=a[s]||0,d="".concat(s," ").concat(p);a[s]=p+1;var c=o(d),f={css:i[1],media:i[2],sourceMap:i[3],supports:i[4],layer:i[5]};if(-1!==c)e[c].references++,e[c].updater(f);else{var u=function(r,e){var o=e.domAPI(e);return o.update(r),function(e){e?(e.css!==r.css||e.media!==r.media||e.sourceMap!==r.sourceMap||e.supports!==r.supports||e.layer!==r.layer)&&o.update(r=e):o.remove()}}(f,t);t.byIndex=l,e.splice(l,0,{identifier:d,updater:u,references:1})}n.push(d)}return n}r.exports=function(r,a){var n=t(r=r||[],a=a||{});return function(r){r=r||[];for(var l=0;l<n.length;l++){var i=o(n[l]);e[i].references--}for(var s=t(r,a),p=0;p<n.length;p++){var d=o(n[p]);0===e[d].references&&(e[d].updater(),e.splice(d,1))}n=s}}},659(r){var e={};r.exports=function(r,o){var t=function(r){if(void 0===e[r]){var o=document.querySelector(r);if(window.HTMLIFrameElement&&o instanceof window.HTMLIFrameElement)try{o=o.contentDocument.head}catch(r){o=null}e[r]=o}return e[r]}(r);if(!t)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");t.appendChild(o)}},540(r){r.exports=function(r){var e=document.createElement("style");return r.setAttributes(e,r.attributes),r.insert(e,r.options),e}},56(r,e,o){r.exports=function(r){var e=o.nc;e&&r.setAttribute("nonce",e)}},206(r){r.exports=function(r){if("u"<typeof document)return{update:function(){},remove:function(){}};var e=r.insertStyleElement(r);return{update:function(o){var t,a,n;t="",o.supports&&(t+="@supports (".concat(o.supports,") {")),o.media&&(t+="@media ".concat(o.media," {")),(a=void 0!==o.layer)&&(t+="@layer".concat(o.layer.length>0?" ".concat(o.layer):""," {")),t+=o.css,a&&(t+="}"),o.media&&(t+="}"),o.supports&&(t+="}"),(n=o.sourceMap)&&"u">typeof btoa&&(t+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(n))))," */")),r.styleTagTransform(t,e,r.options)},remove:function(){var r;null===(r=e).parentNode||r.parentNode.removeChild(r)}}}},113(r){r.exports=function(r,e){if(e.styleSheet)e.styleSheet.cssText=r;else{for(;e.firstChild;)e.removeChild(e.firstChild);e.appendChild(document.createTextNode(r))}}},579(r,e,o){var t=o(72),a=o.n(t),n=o(206),l=o.n(n),i=o(659),s=o.n(i),p=o(56),d=o.n(p),c=o(540),f=o.n(c),u=o(113),v=o.n(u),h=o(475),b={};b.styleTagTransform=v(),b.setAttributes=d(),b.insert=s().bind(null,"head"),b.domAPI=l(),b.insertStyleElement=f(),a()(h.A,b),h.A&&h.A.locals&&h.A.locals}}]);