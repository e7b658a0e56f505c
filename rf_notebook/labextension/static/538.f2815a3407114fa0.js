"use strict";(self.rspackChunkrf_notebook=self.rspackChunkrf_notebook||[]).push([[538],{9(e,r,t){t.d(r,{SavedPanelView:()=>C});var n=t(848),a=t(256),o=t(524),s=t(72),i=t.n(s),l=t(587),c=t.n(l),d=t(659),u=t.n(d),p=t(56),f=t.n(p),h=t(540),v=t.n(h),m=t(113),x=t.n(m),g=t(783),b={};b.styleTagTransform=x(),b.setAttributes=f(),b.insert=u().bind(null,"head"),b.domAPI=c(),b.insertStyleElement=v(),i()(g.A,b),g.A&&g.A.locals&&g.A.locals;var j=t(554),y=t(206),w=t(288);class C extends a.ReactWidget{panel;constructor(e){super(),this.panel=e,this.addClass("rf-static"),this.addClass("rfl-saved")}render(){return(0,n.jsx)(S,{panel:this.panel})}}function S({panel:e}){let[r,t]=o.useState(0),[a,s]=o.useState([0,!1]),[i,l]=o.useState(null),[c,d]=a,u=e.curves[r],p=e.runs.filter(e=>e.best).map(e=>e.id);return(0,n.jsxs)(n.Fragment,{children:[(0,n.jsxs)("p",{children:[(0,n.jsx)("b",{children:e.experiment})," ",e.summary]}),e.curves.length>1&&(0,n.jsxs)("label",{children:["metric"," ",(0,n.jsx)("select",{value:r,onChange:e=>{t(Number(e.target.value))},children:e.curves.map((e,r)=>(0,n.jsx)("option",{value:r,children:e.metric},r))})]}),void 0!==u&&u.runs.length>0&&(0,n.jsxs)(n.Fragment,{children:[(0,n.jsx)(N,{metric:u.metric,curves:u.runs,onHover:l}),(0,n.jsx)(k,{hover:i})]}),(0,n.jsx)("div",{className:"rfl-scroller",children:(0,n.jsxs)("table",{children:[(0,n.jsx)("thead",{children:(0,n.jsx)("tr",{children:e.columns.map((e,r)=>(0,n.jsx)("th",{scope:"col","aria-sort":r!==c?"none":d?"descending":"ascending",children:(0,n.jsxs)("button",{onClick:()=>{s([r,r===c&&!d])},children:[e,r===c?d?" ↓":" ↑":""]})},r))})}),(0,n.jsx)("tbody",{children:(0,y.qD)(e,c,d).map((e,r)=>(0,n.jsx)("tr",{"data-state":e.state,children:e.cells.map((r,t)=>(0,n.jsxs)("td",{children:[0===t&&(0,n.jsx)("span",{className:"rfl-dot",style:{background:(0,j.dU)(e.id)}}),r,0===t&&p.includes(e.id)?" ★":""]},t))},r))})]})}),(0,n.jsx)("p",{className:"rfl-dim",children:"Figures as they were saved. Run the notebook's cells again to open the live panel and go on where the record ends."})]})}function k({hover:e}){return(0,n.jsxs)("p",{className:"rfl-hover",role:"status",children:[null!==e&&`sample ${(0,w.ai)(e.samples)}: `,e?.runs.map(({run:e,value:r})=>(0,n.jsxs)("span",{children:[(0,n.jsx)("span",{className:"rfl-dot",style:{background:(0,j.dU)(e)}}),`run ${String(e)} ${(0,w.ai)(r)}  `]},e))]})}function N({metric:e,curves:r,onHover:a}){let s=o.useRef(null);o.useEffect(()=>{let n=s.current;if(null===n)return;let o=!1,i=()=>void 0;return t.e(280).then(t.bind(t,395)).then(({drawCurves:t})=>{o||(i=t(n,e,r,a))}),()=>{o=!0,i()}},[e,r,a]);let i=`${e} of ${String(r.length)} runs over samples`;return(0,n.jsx)("div",{className:"rfl-chart",ref:s,role:"img","aria-label":i})}},783(e,r,t){var n=t(601),a=t.n(n),o=t(314),s=(t.n(o))()(a());s.push([e.id,`/* Saved panels; loaded when the first is seen. */

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
  height: 1.5em;
  line-height: 1.5em;
  overflow: hidden;
  text-overflow: ellipsis;
  white-space: pre;
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

.rfl-saved select {
  font: inherit;
  margin-bottom: 4px;
}

.rfl-saved :is(button, select):focus-visible {
  outline: 2px solid var(--jp-brand-color1);
  outline-offset: 1px;
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
`,""]),t.d(r,{},{A:s})},314(e){e.exports=function(e){var r=[];return r.toString=function(){return this.map(function(r){var t="",n=void 0!==r[5];return r[4]&&(t+="@supports (".concat(r[4],") {")),r[2]&&(t+="@media ".concat(r[2]," {")),n&&(t+="@layer".concat(r[5].length>0?" ".concat(r[5]):""," {")),t+=e(r),n&&(t+="}"),r[2]&&(t+="}"),r[4]&&(t+="}"),t}).join("")},r.i=function(e,t,n,a,o){"string"==typeof e&&(e=[[null,e,void 0]]);var s={};if(n)for(var i=0;i<this.length;i++){var l=this[i][0];null!=l&&(s[l]=!0)}for(var c=0;c<e.length;c++){var d=[].concat(e[c]);n&&s[d[0]]||(void 0!==o&&(void 0===d[5]||(d[1]="@layer".concat(d[5].length>0?" ".concat(d[5]):""," {").concat(d[1],"}")),d[5]=o),t&&(d[2]&&(d[1]="@media ".concat(d[2]," {").concat(d[1],"}")),d[2]=t),a&&(d[4]?(d[1]="@supports (".concat(d[4],") {").concat(d[1],"}"),d[4]=a):d[4]="".concat(a)),r.push(d))}},r}},601(e){e.exports=function(e){return e[1]}},72(e){var r=[];function t(e){for(var t=-1,n=0;n<r.length;n++)if(r[n].identifier===e){t=n;break}return t}function n(e,n){for(var a={},o=[],s=0;s<e.length;s++){var i=e[s],l=n.base?i[0]+n.base:i[0],c=a[l]||0,d="".concat(l," ").concat(c);a[l]=c+1;var u=t(d),p={css:i[1],media:i[2],sourceMap:i[3],supports:i[4],layer:i[5]};if(-1!==u)r[u].references++,r[u].updater(p);else{var f=function(e,r){var t=r.domAPI(r);return t.update(e),function(r){r?(r.css!==e.css||r.media!==e.media||r.sourceMap!==e.sourceMap||r.supports!==e.supports||r.layer!==e.layer)&&t.update(e=r):t.remove()}}(p,n);n.byIndex=s,r.splice(s,0,{identifier:d,updater:f,references:1})}o.push(d)}return o}e.exports=function(e,a){var o=n(e=e||[],a=a||{});return function(e){e=e||[];for(var s=0;s<o.length;s++){var i=t(o[s]);r[i].references--}for(var l=n(e,a),c=0;c<o.length;c++){var d=t(o[c]);0===r[d].references&&(r[d].updater(),r.splice(d,1))}o=l}}},659(e){var r={};e.exports=function(e,t){var n=function(e){if(void 0===r[e]){var t=document.querySelector(e);if(window.HTMLIFrameElement&&t instanceof window.HTMLIFrameElement)try{t=t.contentDocument.head}catch(e){t=null}r[e]=t}return r[e]}(e);if(!n)throw Error("Couldn't find a style target. This probably means that the value for the 'insert' parameter is invalid.");n.appendChild(t)}},540(e){e.exports=function(e){var r=document.createElement("style");return e.setAttributes(r,e.attributes),e.insert(r,e.options),r}},56(e,r,t){e.exports=function(e){var r=t.nc;r&&e.setAttribute("nonce",r)}},587(e){e.exports=function(e){if("u"<typeof document)return{update:function(){},remove:function(){}};var r=e.insertStyleElement(e);return{update:function(t){var n,a,o;n="",t.supports&&(n+="@supports (".concat(t.supports,") {")),t.media&&(n+="@media ".concat(t.media," {")),(a=void 0!==t.layer)&&(n+="@layer".concat(t.layer.length>0?" ".concat(t.layer):""," {")),n+=t.css,a&&(n+="}"),t.media&&(n+="}"),t.supports&&(n+="}"),(o=t.sourceMap)&&"u">typeof btoa&&(n+="\n/*# sourceMappingURL=data:application/json;base64,".concat(btoa(unescape(encodeURIComponent(JSON.stringify(o))))," */")),e.styleTagTransform(n,r,e.options)},remove:function(){var e;null===(e=r).parentNode||e.parentNode.removeChild(e)}}}},113(e){e.exports=function(e,r){if(r.styleSheet)r.styleSheet.cssText=e;else{for(;r.firstChild;)r.removeChild(r.firstChild);r.appendChild(document.createTextNode(e))}}}}]);